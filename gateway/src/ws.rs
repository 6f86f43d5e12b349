//! One WebSocket connection: a reader and a writer that never wait for each other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::ws::{CloseFrame, Message, WebSocket};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::channel::{self, Channel, Scope};
use crate::hub::{Client, Hub, now_ms};
use crate::protocol::{self, Op, Rejected};

/// Why a connection was closed by us.
mod close {
    pub const SHUTDOWN: u16 = 1001;
    pub const SLOW: u16 = 4008;
    pub const FLOOD: u16 = 4010;
    pub const IDLE: u16 = 4013;
}

/// Serves one client until it leaves, is too slow, floods, falls silent, or `stop` is cancelled.
pub async fn serve(hub: Arc<Hub>, socket: WebSocket, scope: Scope, stop: CancellationToken) {
    let Some(client) = hub.join() else {
        refuse(socket).await;
        return;
    };
    let limits = hub.config.limits.clone();
    let hello = protocol::connected(&hub.epoch, client.id, now_ms(), limits.heartbeat_s, &limits);
    // The queue is empty and its bound is at least one.
    let _ = client.control(hello);
    let (sink, stream) = socket.split();
    let done = CancellationToken::new();
    let writer = tokio::spawn(write(hub.clone(), client.clone(), sink, done.clone(), stop));
    let code = read(&hub, &client, stream, scope, &done).await;
    hub.leave(&client);
    done.cancel();
    // The writer ends within its write timeout; its result is the close code it already sent.
    if let Ok(mut sink) = writer.await
        && let Some(code) = code
    {
        let _ = tokio::time::timeout(Duration::from_secs(1), close_with(&mut sink, code)).await;
    }
}

async fn refuse(mut socket: WebSocket) {
    let text =
        protocol::error(&Value::Null, None, "too_many_clients", "the gateway serves as many clients as it may", &[]);
    // It leaves either way.
    let _ = tokio::time::timeout(Duration::from_secs(1), socket.send(Message::Text(text.into()))).await;
}

/// Writes what waits; a write that takes too long ends the connection. Gives the socket back for the close.
async fn write(
    hub: Arc<Hub>,
    client: Arc<Client>,
    mut sink: SplitSink<WebSocket, Message>,
    done: CancellationToken,
    stop: CancellationToken,
) -> SplitSink<WebSocket, Message> {
    let limits = &hub.config.limits;
    let bound = Duration::from_millis(limits.write_timeout_ms);
    let mut beat = tokio::time::interval(Duration::from_secs(limits.heartbeat_s));
    beat.tick().await;
    loop {
        while let Some(frame) = client.pop() {
            let sent = tokio::time::timeout(bound, sink.send(Message::Text(frame.as_ref().into()))).await;
            match sent {
                Ok(Ok(())) => {}
                Ok(Err(_)) => {
                    done.cancel();
                    return sink;
                }
                Err(_) => {
                    let _ = tokio::time::timeout(Duration::from_millis(100), close_with(&mut sink, close::SLOW)).await;
                    done.cancel();
                    return sink;
                }
            }
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => {
                let _ = tokio::time::timeout(bound, sink.send(Message::Text(protocol::bye().into()))).await;
                let _ = tokio::time::timeout(bound, close_with(&mut sink, close::SHUTDOWN)).await;
                done.cancel();
                return sink;
            }
            () = done.cancelled() => return sink,
            // Cancel safe: a wake-up that comes meanwhile is kept by `Notify`.
            () = client.woken() => {}
            // Cancel safe: the interval keeps its next tick. A browser cannot see pings, so it gets words as well.
            _ = beat.tick() => {
                let ping = tokio::time::timeout(bound, async {
                    sink.send(Message::Ping(Vec::new().into())).await?;
                    sink.send(Message::Text(protocol::heartbeat(now_ms()).into())).await
                });
                if !matches!(ping.await, Ok(Ok(()))) {
                    done.cancel();
                    return sink;
                }
            }
        }
    }
}

async fn close_with(sink: &mut SplitSink<WebSocket, Message>, code: u16) {
    // The other side may be gone: then there is nobody to tell.
    let _ = sink.send(Message::Close(Some(CloseFrame { code, reason: "".into() }))).await;
}

/// Reads until the end; `Some`: the code to close with.
async fn read(
    hub: &Hub,
    client: &Client,
    mut stream: SplitStream<WebSocket>,
    scope: Scope,
    done: &CancellationToken,
) -> Option<u16> {
    let limits = &hub.config.limits;
    let silence_max = Duration::from_secs(limits.heartbeat_s * 3);
    let mut mine: BTreeMap<String, Channel> = BTreeMap::new();
    let mut second = Instant::now();
    let mut ops = 0u32;
    loop {
        let message = tokio::select! {
            biased;
            () = done.cancelled() => return None,
            // Dropping the read loses nothing: the connection is over when the other branch wins.
            message = tokio::time::timeout(silence_max, stream.next()) => message,
        };
        let text = match message {
            Err(_) => return Some(close::IDLE),
            Ok(None | Some(Err(_) | Ok(Message::Close(_)))) => return None,
            Ok(Some(Ok(Message::Text(text)))) => text,
            Ok(Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Binary(_)))) => continue,
        };
        if second.elapsed() >= Duration::from_secs(1) {
            (second, ops) = (Instant::now(), 0);
        }
        ops += 1;
        if ops > limits.ops_per_s_max * 10 {
            return Some(close::FLOOD);
        }
        let answered = if ops > limits.ops_per_s_max {
            client.control(protocol::error(
                &Value::Null,
                None,
                "rate_limited",
                &format!("{} operations a second are allowed", limits.ops_per_s_max),
                &[],
            ))
        } else {
            answer(hub, client, scope, &mut mine, &text)
        };
        if answered.is_err() {
            return Some(close::SLOW);
        }
    }
}

/// One request of the client, answered into its outbox.
fn answer(
    hub: &Hub,
    client: &Client,
    scope: Scope,
    mine: &mut BTreeMap<String, Channel>,
    text: &str,
) -> Result<(), crate::outbox::TooSlow> {
    let request = match protocol::parse(text) {
        Ok(request) => request,
        Err(error) => return client.control(error),
    };
    match request.op {
        Op::Ping => client.control(protocol::pong(&request.id, now_ms())),
        Op::List => {
            let channels: Vec<Channel> = mine.values().cloned().collect();
            client.control(protocol::ok("list", &request.id, &channels, &[]))
        }
        Op::UnsubscribeAll => {
            let channels: Vec<Channel> = std::mem::take(mine).into_values().collect();
            hub.unsubscribe(client, &channels);
            client.control(protocol::ok("unsubscribe_all", &request.id, &channels, &[]))
        }
        Op::Unsubscribe(names) => {
            let gone: Vec<Channel> = names.iter().filter_map(|name| mine.remove(name)).collect();
            hub.unsubscribe(client, &gone);
            client.control(protocol::ok("unsubscribe", &request.id, &gone, &[]))
        }
        Op::Subscribe(names) => {
            let mut taken = Vec::new();
            let mut rejected: Vec<Rejected> = Vec::new();
            for name in names {
                match channel::parse(&name, scope) {
                    Err(code) => rejected.push((name.chars().take(channel::NAME_BYTES_MAX).collect(), code)),
                    Ok(_) if !mine.contains_key(&name) && mine.len() >= hub.config.limits.channels_max => {
                        rejected.push((name, "too_many_channels"));
                    }
                    Ok(channel) => {
                        mine.insert(name, channel.clone());
                        taken.push(channel);
                    }
                }
            }
            if taken.is_empty() {
                return client.control(protocol::error(
                    &request.id,
                    Some("subscribe"),
                    "no_valid_channels",
                    "no valid channels",
                    &rejected,
                ));
            }
            let ack = protocol::ok("subscribe", &request.id, &taken, &rejected);
            hub.subscribe(client, &taken, ack)
        }
    }
}
