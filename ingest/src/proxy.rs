//! Connections through an HTTP proxy (`CONNECT`), as RFC 9110 section 9.3.6 describes it. Names are resolved by the proxy.

use anyhow::{Context, bail, ensure};
use data_encoding::BASE64;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::config::proxy_address;

/// Environment variables with the proxy's user and password.
pub const USER_ENV: &str = "TAPELINE_PROXY_USER";
pub const PASSWORD_ENV: &str = "TAPELINE_PROXY_PASSWORD";

/// The head of a proxy's answer is read up to here.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// A proxy and who we are to it.
#[derive(Clone)]
pub struct Proxy {
    /// `host:port`
    address: String,
    login: Option<(String, String)>,
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let login = self.login.as_ref().map(|_| "***");
        f.debug_struct("Proxy").field("address", &self.address).field("login", &login).finish()
    }
}

impl Proxy {
    /// `None` where `url` is empty. Login from the environment.
    pub fn from_config(url: &str) -> anyhow::Result<Option<Self>> {
        if url.is_empty() {
            return Ok(None);
        }
        let address = proxy_address(url).map_err(anyhow::Error::msg)?.to_owned();
        let login = match (std::env::var(USER_ENV), std::env::var(PASSWORD_ENV)) {
            (Ok(user), password) => Some((user, password.unwrap_or_default())),
            (Err(_), _) => None,
        };
        Ok(Some(Self { address, login }))
    }

    /// The same for the REST client.
    pub fn for_http(&self) -> anyhow::Result<reqwest::Proxy> {
        let proxy = reqwest::Proxy::all(format!("http://{}", self.address)).context("read the proxy's address")?;
        Ok(match &self.login {
            Some((user, password)) => proxy.basic_auth(user, password),
            None => proxy,
        })
    }

    /// A tunnel to `host:port`.
    pub async fn tunnel(&self, target: &str) -> anyhow::Result<TcpStream> {
        let mut stream =
            TcpStream::connect(&self.address).await.with_context(|| format!("reach the proxy {}", self.address))?;
        stream.set_nodelay(true).context("set up the connection")?;
        let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n");
        if let Some((user, password)) = &self.login {
            let basic = BASE64.encode(format!("{user}:{password}").as_bytes());
            request += &format!("Proxy-Authorization: Basic {basic}\r\n");
        }
        stream.write_all(format!("{request}\r\n").as_bytes()).await.context("ask the proxy")?;
        // Byte by byte: what stands behind the head is the venue's.
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            ensure!(head.len() < HEAD_BYTES_MAX, "the proxy's answer has no end");
            let mut byte = [0];
            ensure!(stream.read(&mut byte).await.context("hear the proxy")? == 1, "the proxy closed the connection");
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head);
        let line = head.lines().next().unwrap_or_default();
        let status = line.split(' ').nth(1).unwrap_or_default();
        if !line.starts_with("HTTP/1.") || !status.starts_with('2') {
            bail!("the proxy refused {target}: {line}");
        }
        Ok(stream)
    }
}

/// `host:port` that a WebSocket address leads to.
pub fn target(url: &str) -> anyhow::Result<String> {
    let uri: tokio_tungstenite::tungstenite::http::Uri = url.parse().with_context(|| format!("read {url}"))?;
    let host = uri.host().with_context(|| format!("{url} names no host"))?;
    let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("wss") { 443 } else { 80 });
    Ok(format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[test]
    fn a_proxy_is_written_with_host_and_port_and_nothing_secret() {
        assert_eq!(proxy_address("http://10.0.0.1:3128/"), Ok("10.0.0.1:3128"));
        for wrong in ["", "10.0.0.1:3128", "https://x:1", "http://x", "http://u:p@x:1", "http://x:0", "http://x:1/path"]
        {
            assert!(proxy_address(wrong).unwrap_err().contains("http://host:port"), "{wrong}");
        }
        assert_eq!(target("wss://a.example/ws?x=1").unwrap(), "a.example:443");
        assert_eq!(target("ws://127.0.0.1:99/ws").unwrap(), "127.0.0.1:99");
    }

    #[tokio::test]
    async fn a_tunnel_leads_through_the_proxy_and_a_refusal_is_told() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let proxy = Proxy { address, login: Some(("user".into(), "pass".into())) };
        assert!(!format!("{proxy:?}").contains("pass"));
        let served = tokio::spawn(async move {
            let mut heads = Vec::new();
            for answer in ["HTTP/1.1 200 ok\r\n\r\nfrom behind", "HTTP/1.1 403 no\r\n\r\n"] {
                let (mut socket, _) = listener.accept().await.unwrap();
                let (mut head, mut byte) = (Vec::new(), [0]);
                while !head.ends_with(b"\r\n\r\n") && socket.read(&mut byte).await.unwrap() == 1 {
                    head.push(byte[0]);
                }
                heads.push(String::from_utf8(head).unwrap());
                socket.write_all(answer.as_bytes()).await.unwrap();
            }
            heads
        });
        let mut tunnel = proxy.tunnel("venue.example:443").await.unwrap();
        let mut behind = String::new();
        tunnel.read_to_string(&mut behind).await.unwrap();
        assert_eq!(behind, "from behind");
        assert!(proxy.tunnel("venue.example:443").await.unwrap_err().to_string().contains("403"));
        let heads = served.await.unwrap();
        assert!(heads[0].starts_with("CONNECT venue.example:443 HTTP/1.1\r\n"), "{heads:?}");
        assert!(heads[0].contains("Proxy-Authorization: Basic dXNlcjpwYXNz\r\n"), "{heads:?}");
    }
}
