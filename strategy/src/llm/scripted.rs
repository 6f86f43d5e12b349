//! A chat-completions server on loopback that answers by script, byte for byte, and keeps every request. For
//! tests; the cross-stage tests include this file too.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// One answer.
#[derive(Clone, Debug)]
pub enum Step {
    /// Status, further header lines, body.
    Answer(u16, Vec<(&'static str, String)>, String),
    /// Reads the request and says nothing.
    Silence,
    /// A good head, then a byte of white space now and then, without end.
    Trickle,
    /// A good head that promises more bytes than come before the connection closes.
    Broken,
}

impl Step {
    /// A whole completion with this content.
    pub fn says(content: &str) -> Self {
        Self::finishes(content, "stop")
    }
    pub fn finishes(content: &str, finish_reason: &str) -> Self {
        let body = serde_json::json!({
            "choices": [{ "finish_reason": finish_reason, "message": { "role": "assistant", "content": content,
                "reasoning_content": "{\"decisions\":[{\"coin\":\"BTC\",\"action\":\"close\"}]}" } }],
            "usage": { "prompt_tokens": 100, "completion_tokens": 20, "prompt_tokens_details": { "cached_tokens": 60 },
                "completion_tokens_details": { "reasoning_tokens": 5 } },
        });
        Self::Answer(200, Vec::new(), body.to_string())
    }
    pub fn status(status: u16, headers: &[(&'static str, &str)], body: &str) -> Self {
        let headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        Self::Answer(status, headers, body.to_owned())
    }
}

/// What came in.
#[derive(Clone, Debug)]
pub struct Request {
    /// Request line and header lines, lower case.
    pub head: String,
    pub body: String,
    pub at: Instant,
}

/// The running server. It ends with the test's runtime.
pub struct Scripted {
    pub addr: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    steps: Arc<Mutex<VecDeque<Step>>>,
}

impl Scripted {
    /// Answers requests with `steps` in order; past their end with status 410.
    pub async fn start(steps: Vec<Step>) -> std::io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let addr = listener.local_addr()?;
        let requests = Arc::new(Mutex::new(Vec::new()));
        let steps = Arc::new(Mutex::new(VecDeque::from(steps)));
        let server = Self { addr, requests: Arc::clone(&requests), steps: Arc::clone(&steps) };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // A client that went away in the middle is part of the script.
                tokio::spawn(serve(stream, Arc::clone(&requests), Arc::clone(&steps)));
            }
        });
        Ok(server)
    }
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.addr)
    }
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().expect("no panic holds it").clone()
    }
    /// Steps that nobody asked for yet.
    pub fn left(&self) -> usize {
        self.steps.lock().expect("no panic holds it").len()
    }
}

async fn serve(
    mut stream: TcpStream,
    requests: Arc<Mutex<Vec<Request>>>,
    steps: Arc<Mutex<VecDeque<Step>>>,
) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    loop {
        let mut buffer = [0; 4096];
        let n = stream.read(&mut buffer).await?;
        if n == 0 {
            return Ok(());
        }
        bytes.extend_from_slice(&buffer[..n]);
        let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
        if bytes.len() < end + 4 + length {
            continue;
        }
        let body = String::from_utf8_lossy(&bytes[end + 4..end + 4 + length]).into_owned();
        requests.lock().expect("no panic holds it").push(Request { head, body, at: Instant::now() });
        break;
    }
    let step = steps.lock().expect("no panic holds it").pop_front();
    match step.unwrap_or(Step::status(410, &[], "the script has ended")) {
        Step::Answer(status, headers, body) => {
            let mut head =
                format!("HTTP/1.1 {status} Scripted\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
            for (name, value) in headers {
                head += &format!("{name}: {value}\r\n");
            }
            stream.write_all(format!("{head}\r\n{body}").as_bytes()).await?;
        }
        Step::Silence => hold(&mut stream, None).await?,
        Step::Trickle => hold(&mut stream, Some(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")).await?,
        Step::Broken => stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{\"choices\":").await?,
    }
    stream.shutdown().await
}

/// Keeps the connection until the client goes; with a head it sends that and white space behind it.
async fn hold(stream: &mut TcpStream, head: Option<&[u8]>) -> std::io::Result<()> {
    let Some(head) = head else {
        let mut rest = [0; 64];
        while stream.read(&mut rest).await? != 0 {}
        return Ok(());
    };
    stream.write_all(head).await?;
    loop {
        stream.write_all(b" ").await?;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
