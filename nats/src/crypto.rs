//! The process's TLS provider.

/// Installs ring as the process's rustls provider; the second call does nothing. Needed before the first TLS
/// connection of async-nats, reqwest or tokio-tungstenite, because none of them brings a default.
pub fn install() {
    // An error means that a provider is installed already, which is all that is asked for.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
