//! The gateway as a process: configuration, feeds, server.

use std::sync::Arc;

use anyhow::Context;
use nats::{Stage, StageArgs};
use serde_json::json;

use crate::config::Config;
use crate::feed;
use crate::hub::Hub;
use crate::server::{self, App};

/// Runs until a signal or the first failure.
pub async fn run(args: StageArgs) -> anyhow::Result<()> {
    let config = Config::load(args.user_file()?.as_ref())?;
    let (listener, addr) = server::bind(&config.listen).await?;
    let stage = Stage::start("gateway", &args).await?;
    let bus = stage.bus();
    let hub = Arc::new(Hub::new(config));

    for (name, filter) in feed::stored(&hub.config.account, &hub.config.traders) {
        let (hub, bus, stop) = (hub.clone(), bus.clone(), stage.stop());
        let what = format!("follow {name}");
        stage.spawn(&what, async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => Ok(()),
                // Dropping it loses nothing: the view is made anew at every start.
                ended = follow(hub, bus, name, filter) => ended,
            }
        });
    }
    for subject in feed::LIVE {
        let (hub, bus, stop) = (hub.clone(), bus.clone(), stage.stop());
        stage.spawn(&format!("hear {subject}"), async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => Ok(()),
                // Dropping it loses nothing that is not stored elsewhere.
                ended = feed::live(hub, bus, subject) => ended,
            }
        });
    }
    for subject in feed::KNOCKS {
        let (hub, bus, stop) = (hub.clone(), bus.clone(), stage.stop());
        stage.spawn(&format!("listen at {subject}"), async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => Ok(()),
                // Dropping it loses nothing: followers look by themselves too.
                ended = feed::knock(hub, bus, subject) => ended,
            }
        });
    }
    let (asked_hub, asked_bus, stop) = (hub.clone(), bus.clone(), stage.stop());
    stage.spawn("ask the stages", async move {
        tokio::select! {
            biased;
            () = stop.cancelled() => Ok(()),
            // Dropping a question loses nothing.
            ended = feed::stages(asked_hub, asked_bus) => ended,
        }
    });

    let counted = hub.clone();
    let shown = move || {
        let relaxed = std::sync::atomic::Ordering::Relaxed;
        json!({"clients": counted.clients(), "messages_out": counted.messages_out.load(relaxed), "undecodable": counted.undecodable.load(relaxed)})
    };
    stage.stats("gateway", Box::new(shown));
    let app = Arc::new(App::new(hub, bus, addr, stage.stop()));
    tracing::info!(url = %format!("http://{addr}"), "dashboard");
    stage.spawn("serve", async move { server::serve(app, listener).await });
    stage.wait().await
}

/// The stream may be made a moment later than we start.
async fn follow(hub: Arc<Hub>, bus: nats::Bus, name: String, filter: String) -> anyhow::Result<()> {
    nats::stage::require(&bus, &[&name]).await.with_context(|| format!("wait for stream {name}"))?;
    feed::follow(hub, bus, name, filter).await
}
