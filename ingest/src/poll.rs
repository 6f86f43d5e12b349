//! What a link hears over: a socket, or nothing at all where its session asks by REST again and again.
//!
//! All else of a link (its actions, requests, rates, orders, what it tells) is the same for both.

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

/// A connection to a venue.
pub struct Wire(Option<WebSocketStream<MaybeTlsStream<TcpStream>>>);

impl Wire {
    pub fn socket(socket: WebSocketStream<MaybeTlsStream<TcpStream>>) -> Self {
        Self(Some(socket))
    }

    /// Of a polled session: no frame ever comes.
    pub fn none() -> Self {
        Self(None)
    }

    /// The next frame. Cancel safe: a frame is taken or stays in the socket.
    pub async fn next(&mut self) -> Option<Result<Message, Error>> {
        match &mut self.0 {
            Some(socket) => socket.next().await,
            None => std::future::pending().await,
        }
    }

    /// Without a socket nobody is there who could hear, and nothing that a polled session says is for a socket.
    pub async fn send(&mut self, message: Message) -> Result<(), Error> {
        match &mut self.0 {
            Some(socket) => socket.send(message).await,
            None => Ok(()),
        }
    }

    pub async fn close(&mut self, why: Option<CloseFrame>) -> Result<(), Error> {
        match &mut self.0 {
            Some(socket) => socket.close(why).await,
            None => Ok(()),
        }
    }
}
