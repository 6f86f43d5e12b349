//! One nats-server, or three that replicate, on loopback: what kills, pauses and asks them.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use nats::{Bus, Config, Layout, Login};
use nix::sys::signal::Signal;
use schemas::config::UserFile;

use crate::{Member, Server, within};

/// How long a health request may take.
const HEALTH_BOUND: Duration = Duration::from_millis(300);
/// How long a fresh cluster may refuse streams.
const LAYOUT_BOUND: Duration = Duration::from_secs(60);
/// Tries to start a cluster: a free port may be taken by somebody else before its server binds it.
const START_TRIES_MAX: u32 = 3;

/// One server, or a cluster of three, with the users and rights of `nats/conf/server.conf`.
pub struct Cluster {
    nodes: Vec<Server>,
    http: reqwest::Client,
}

impl Cluster {
    /// `nodes`: 1 or 3.
    pub async fn start(nodes: usize) -> anyhow::Result<Self> {
        ensure!(nodes == 1 || nodes == 3, "a cluster has 1 or 3 nodes, not {nodes}");
        nats::crypto::install();
        let http = reqwest::Client::builder().timeout(HEALTH_BOUND).build().context("make an HTTP client")?;
        if nodes == 1 {
            return Ok(Self { nodes: vec![Server::start_with_rights().await?], http });
        }
        let mut tried = 0;
        loop {
            tried += 1;
            match Self::members(nodes).await {
                Ok(nodes) => return Ok(Self { nodes, http }),
                Err(error) if tried >= START_TRIES_MAX => return Err(error),
                Err(_) => {}
            }
        }
    }

    async fn members(nodes: usize) -> anyhow::Result<Vec<Server>> {
        let ports = free_ports(2 * nodes)?;
        let (routes, monitors) = ports.split_at(nodes);
        let mut members = Vec::new();
        for (route_port, monitor_port) in routes.iter().zip(monitors) {
            let member = Member { route_port: *route_port, monitor_port: *monitor_port, routes: routes.to_vec() };
            members.push(Server::of_cluster(member).await?);
        }
        for member in &mut members {
            member.answers().await?;
        }
        Ok(members)
    }

    pub fn nodes(&self) -> usize {
        self.nodes.len()
    }
    pub fn node(&self, node: usize) -> &Server {
        &self.nodes[node]
    }
    pub fn node_mut(&mut self, node: usize) -> &mut Server {
        &mut self.nodes[node]
    }

    /// A scratch folder that goes with the servers.
    pub fn dir(&self) -> &std::path::Path {
        self.nodes[0].dir()
    }

    pub fn login(&self, stage: &str) -> Login {
        let urls: Vec<String> = self.nodes.iter().map(Server::url).collect();
        Login { url: urls.join(","), ..self.nodes[0].login(stage) }
    }

    /// The configuration of an operator of these servers: streams have as many copies as there are nodes.
    pub async fn operator(&self) -> anyhow::Result<Bus> {
        let text = format!("[nats.layout]\nreplicas = {}\n", self.nodes());
        let config = Config::load(Some(&UserFile { name: "cluster".into(), text }))?;
        Ok(Bus::connect(self.login("operator"), config).await?)
    }

    /// The streams of `layout`. A fresh cluster refuses them until it has a leader that knows all nodes.
    pub async fn create(&self, operator: &Bus, layout: &Layout) -> anyhow::Result<()> {
        let mut refusal = None;
        let made = within(LAYOUT_BOUND, async || {
            refusal = layout.apply(operator).await.err();
            Ok(refusal.is_none().then_some(()))
        });
        match made.await? {
            Some(()) => Ok(()),
            None => bail!("create the streams: {refusal:?}"),
        }
    }

    /// The node that leads a stream; `None` while there is none. On one server always the first.
    pub async fn leader(&self, operator: &Bus, stream: &str) -> anyhow::Result<Option<usize>> {
        if self.nodes() == 1 {
            return Ok(Some(0));
        }
        let info = operator.client().request(format!("$JS.API.STREAM.INFO.{stream}"), "".into()).await?;
        let info: serde_json::Value = serde_json::from_slice(&info.payload)?;
        let leader = info["cluster"]["leader"].as_str();
        Ok(self.nodes.iter().position(|node| Some(node.name()) == leader))
    }

    /// Environment for a stage that is to reach the nodes without a proxy.
    pub fn env_direct(&self, stage: &str) -> Vec<(String, String)> {
        let ports: Vec<u16> = self.nodes.iter().map(Server::port).collect();
        self.env(stage, &ports)
    }

    /// Environment for a stage that is to reach the nodes at these ports.
    pub fn env(&self, stage: &str, ports: &[u16]) -> Vec<(String, String)> {
        let urls: Vec<String> = ports.iter().map(|port| format!("nats://127.0.0.1:{port}")).collect();
        let mut env = self.nodes[0].env(stage);
        for (name, value) in &mut env {
            if name == "NATS_URL" {
                *value = urls.join(",");
            }
        }
        env
    }

    /// SIGKILL, and started again at once; nobody waits for it.
    pub fn kill9(&mut self, node: usize) -> anyhow::Result<()> {
        let server = &mut self.nodes[node];
        if let Some(why) = server.ended()? {
            anyhow::bail!("{why}");
        }
        server.kill9()?;
        server.start_again()
    }

    /// SIGKILL of every node before any is started again.
    pub fn kill9_all(&mut self) -> anyhow::Result<()> {
        for server in &mut self.nodes {
            server.kill9()?;
        }
        self.nodes.iter_mut().try_for_each(Server::start_again)
    }

    pub fn pause(&self, node: usize) -> anyhow::Result<()> {
        self.nodes[node].signal(Signal::SIGSTOP)
    }
    pub fn resume(&self, node: usize) -> anyhow::Result<()> {
        self.nodes[node].signal(Signal::SIGCONT)
    }

    /// Nodes that do not say that they are up and caught up. A single server counts as healthy.
    pub async fn unhealthy(&self) -> BTreeSet<usize> {
        let mut ill = BTreeSet::new();
        for (node, server) in self.nodes.iter().enumerate() {
            let Some(port) = server.monitor_port() else { continue };
            let answer = self.http.get(format!("http://127.0.0.1:{port}/healthz")).send().await;
            if !answer.is_ok_and(|answer| answer.status().is_success()) {
                ill.insert(node);
            }
        }
        ill
    }
}

/// A member's table in the server's configuration. Nodes do not tell clients of each other: a client that learned
/// another address would go around the proxy that cuts it.
pub(crate) fn block(member: &Member) -> String {
    let routes: Vec<String> = member.routes.iter().map(|port| format!("\"nats-route://127.0.0.1:{port}\"")).collect();
    format!(
        "\ncluster {{\n  name: tapeline\n  listen: \"127.0.0.1:{}\"\n  no_advertise: true\n  routes: [{}]\n}}\n",
        member.route_port,
        routes.join(", ")
    )
}

/// Ports of 127.0.0.1 that nobody held a moment ago: routes have to be known before the first node starts.
fn free_ports(n: usize) -> anyhow::Result<Vec<u16>> {
    let listeners: Vec<TcpListener> =
        (0..n).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>().context("find free ports")?;
    listeners.iter().map(|l| Ok(l.local_addr()?.port())).collect()
}
