//! Reads that see every acknowledged write: `STREAM.MSG.GET`, answered by the stream's leader. Direct gets are
//! answered by any replica and are for screens, never for recovery.

use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::{LastRawMessageError, LastRawMessageErrorKind};

use crate::bus::{Bus, NO_MESSAGE_FOUND, Trouble, absent, why};
use crate::error::BusError;
use crate::reader::Message;

/// The message at `seq`; `None` when it never was, or is gone.
pub async fn get(bus: &Bus, stream: &str, seq: u64) -> Result<Option<Message>, BusError> {
    Ok(get_whole(bus, stream, seq).await?.map(message))
}

/// The newest message on `subject` (wildcards are allowed); `None` when there is none.
pub async fn last_by_subject(bus: &Bus, stream: &str, subject: &str) -> Result<Option<Message>, BusError> {
    let handle = handle(bus, stream).await?;
    let what = format!("newest {subject} in {stream}");
    let found = bus
        .patiently(&what, || async { optional(handle.raw_message_builder().last_by_subject(subject).send().await) })
        .await
        .map_err(|error| absent(error, stream))?;
    Ok(found.map(message))
}

/// The first message on `subject` at `seq` or later; `None` when there is none.
pub async fn next_by_subject(bus: &Bus, stream: &str, subject: &str, seq: u64) -> Result<Option<Message>, BusError> {
    let handle = handle(bus, stream).await?;
    let what = format!("next {subject} in {stream} from {seq}");
    let found = bus
        .patiently(&what, || async {
            optional(handle.raw_message_builder().sequence(seq).next_by_subject(subject).send().await)
        })
        .await
        .map_err(|error| absent(error, stream))?;
    Ok(found.map(message))
}

/// Like [`get`], with the headers.
pub(crate) async fn get_whole(bus: &Bus, stream: &str, seq: u64) -> Result<Option<StreamMessage>, BusError> {
    let handle = handle(bus, stream).await?;
    let what = format!("message {stream}:{seq}");
    bus.patiently(&what, || async { optional(handle.get_raw_message(seq).await) })
        .await
        .map_err(|error| absent(error, stream))
}

async fn handle(bus: &Bus, stream: &str) -> Result<async_nats::jetstream::stream::Stream<()>, BusError> {
    bus.js()
        .get_stream_no_info(stream)
        .await
        .map_err(|error| BusError::Config(format!("stream name {stream}: {}", why(&error))))
}

fn optional(answer: Result<StreamMessage, LastRawMessageError>) -> Result<Option<StreamMessage>, Trouble> {
    match answer {
        Ok(message) => Ok(Some(message)),
        Err(error) => match error.kind() {
            LastRawMessageErrorKind::NoMessageFound => Ok(None),
            LastRawMessageErrorKind::JetStream(answer) => match (answer.error_code().0, answer.code()) {
                (NO_MESSAGE_FOUND, _) => Ok(None),
                (_, 503) => Err(Trouble::Again(answer.to_string())),
                (code, _) => Err(Trouble::Refused { code, text: answer.to_string() }),
            },
            LastRawMessageErrorKind::InvalidSubject => Err(Trouble::Refused { code: 0, text: why(&error) }),
            LastRawMessageErrorKind::Other => Err(Trouble::Again(why(&error))),
        },
    }
}

fn message(found: StreamMessage) -> Message {
    Message {
        seq: found.sequence,
        trace: crate::reader::traced(&found.headers),
        subject: found.subject,
        payload: found.payload,
        pending: 0,
        time_ns: found.time.unix_timestamp_nanos() as i64,
    }
}
