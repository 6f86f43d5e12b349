//! What each user may say, tried against the server itself.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::{ConnectErrorKind, ConnectOptions, HeaderMap};
use tokio::sync::mpsc;

use super::Findings;

/// A subject of each family with its owner. The tokens `doctor` name no venue and no account, so nobody stores or
/// folds what a server that is too generous lets pass.
const SAID: &[(&str, &str)] = &[
    ("raw.0.doctor.trade._", "ingest"),
    ("candle.0.doctor.1s._", "aggregate"),
    ("signal.0.doctor.doctor._", "strategy"),
    ("signal.ext.doctor.doctor._", "external"),
    ("order.doctor.doctor._", "risk"),
    ("fill.doctor.doctor._", "executor"),
    ("$KV.cfg.doctor", "operator"),
    ("bt.doctor.order", "operator"),
];
/// How long the server may take to refuse.
const ANSWER_WAIT: Duration = Duration::from_secs(3);
/// Nobody may say it; its refusal shows that everything before was answered.
const NOBODY: &str = "doctor.says.nothing";

/// Tries every user whose password is known, and a stranger.
pub async fn try_all(url: &str, passwords: &BTreeMap<String, String>, findings: &mut Findings) {
    nats::crypto::install();
    let stranger = ConnectOptions::new().connection_timeout(ANSWER_WAIT).connect(url).await;
    if stranger.is_ok() {
        findings.warn(
            "rights",
            "strangers",
            "the server lets in whoever comes: every stage may say everything",
            "start it with nats/conf/server.conf, which has one user a stage (`tapeline up` does)",
        );
        return;
    }
    if passwords.is_empty() {
        let remedy = "set TAPELINE_<USER>_PASSWORD in the environment, or name the pipeline's folder";
        findings.warn("rights", "users", "no password is known, so nothing was tried", remedy);
        return;
    }
    for (user, password) in passwords {
        one(url, user, password, findings).await;
    }
}

async fn one(url: &str, user: &str, password: &str, findings: &mut Findings) {
    let (refusals, mut heard) = mpsc::channel::<String>(2 * SAID.len());
    let options = ConnectOptions::new()
        .user_and_password(user.to_owned(), password.to_owned())
        .custom_inbox_prefix(format!("_INBOX_{user}"))
        .connection_timeout(ANSWER_WAIT)
        .event_callback(move |event| {
            let refusals = refusals.clone();
            async move {
                // There is room for the answer to everything that is asked.
                let _ = refusals.try_send(event.to_string().to_lowercase());
            }
        });
    let client = match options.connect(url).await {
        Ok(client) => client,
        Err(error) => {
            let wrong =
                matches!(error.kind(), ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication);
            let found = if wrong { "the server does not take its password".to_owned() } else { error.to_string() };
            let remedy = format!(
                "set TAPELINE_{}_PASSWORD to what the server was started with, or start the server again",
                user.to_uppercase()
            );
            findings.fail("rights", user, found, remedy);
            return;
        }
    };
    if user == "operator" {
        findings.ok("rights", user, "may do everything");
        return;
    }
    // A stream refuses this position, so nothing is stored by asking.
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Expected-Last-Sequence", "999999999");
    let foreign: Vec<&str> = SAID.iter().filter(|(_, owner)| *owner != user).map(|(subject, _)| *subject).collect();
    for subject in foreign.iter().chain([&NOBODY]) {
        if let Err(error) = client.publish_with_headers(subject.to_string(), headers.clone(), "".into()).await {
            findings.fail("rights", user, error.to_string(), "look at the server's log");
            return;
        }
    }
    let mut refused = Vec::new();
    let answered = tokio::time::timeout(ANSWER_WAIT, async {
        while let Some(event) = heard.recv().await {
            if event.contains(NOBODY) {
                return;
            }
            refused.extend(foreign.iter().filter(|subject| event.contains(&subject.to_lowercase())));
        }
    })
    .await;
    let remedy = "use the users and rights of nats/conf/server.conf";
    if answered.is_err() {
        let found = "the server let it say what nobody may say";
        findings.fail("rights", user, found, remedy);
        return;
    }
    let passed: Vec<&str> = foreign.iter().filter(|subject| !refused.contains(subject)).copied().collect();
    if passed.is_empty() {
        findings.ok("rights", user, format!("may say its own; {} subjects of others are refused", foreign.len()));
    } else {
        findings.fail("rights", user, format!("may say {}", passed.join(", ")), remedy);
    }
}
