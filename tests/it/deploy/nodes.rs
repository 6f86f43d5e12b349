//! nats-servers started from exactly the files in `deploy/nats`; what differs comes from the environment, as it does
//! in a deployment.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use nats::{Bus, Config, Login};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;
pub use tests::program;
use tests::{Server, USERS, wait_for};

pub const BOUND: Duration = Duration::from_secs(30);
const NODES: usize = 3;

/// A file or folder of the checkout.
pub fn checkout(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

pub fn nats_server() -> PathBuf {
    let local = checkout(".tapeline/bin/nats-server");
    match std::env::var_os("NATS_SERVER_BIN") {
        Some(path) => path.into(),
        None if local.exists() => local,
        None => "nats-server".into(),
    }
}

/// A free port on loopback; another process may take it before we do, then the server says so and the test fails.
fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// One nats-server of a deployment; dropping it kills exactly this process.
pub struct Node {
    child: Child,
    file: &'static str,
    dir: PathBuf,
    env: Vec<(String, String)>,
    pub name: String,
    pub port: u16,
}

impl Node {
    fn start(file: &'static str, dir: PathBuf, name: &str, extra: &[(&str, String)]) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&dir)?;
        let port = free_port()?;
        let mut env: Vec<(String, String)> = USERS
            .iter()
            .map(|user| (format!("TAPELINE_{}_PASSWORD", user.to_ascii_uppercase()), Server::password(user)))
            .collect();
        let own = [
            ("TAPELINE_NODE", name.to_owned()),
            ("TAPELINE_HOST", "127.0.0.1".to_owned()),
            ("TAPELINE_PORT", port.to_string()),
            ("TAPELINE_HTTP", "127.0.0.1:-1".to_owned()),
            ("TAPELINE_STORE_DIR", format!("{:?}", dir.join("store"))),
        ];
        env.extend(own.iter().chain(extra).map(|(key, value)| ((*key).to_owned(), value.clone())));
        let child = spawn(file, &dir, &env)?;
        Ok(Self { child, file, dir, env, name: name.to_owned(), port })
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|ended| ended.is_none())
    }
    pub fn kill9(&mut self) -> anyhow::Result<()> {
        self.child.kill().context("kill nats-server")?;
        self.child.wait().context("await nats-server")?;
        Ok(())
    }
    /// Again with another file of `deploy/nats`, over the same store; it ends in peace, so its leaders move first.
    pub fn restart_with(&mut self, file: &'static str) -> anyhow::Result<()> {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM).context("end nats-server")?;
        self.child.wait().context("await nats-server")?;
        self.file = file;
        self.restart()
    }
    /// Over the same store and ports; it must be dead.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        ensure!(!self.runs(), "{} still runs", self.name);
        self.child = spawn(self.file, &self.dir, &self.env)?;
        Ok(())
    }
    /// Everything that it stored is gone; it must be dead.
    pub fn lose_disk(&mut self) -> anyhow::Result<()> {
        ensure!(!self.runs(), "{} still runs", self.name);
        Ok(std::fs::remove_dir_all(self.dir.join("store"))?)
    }
    fn log(&self) -> String {
        let text = std::fs::read_to_string(self.dir.join("server.log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        format!("--- {}\n{}", self.name, lines[lines.len().saturating_sub(10)..].join("\n"))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Dead already is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(file: &str, dir: &Path, env: &[(String, String)]) -> anyhow::Result<Child> {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(dir.join("server.log"))?;
    Command::new(nats_server())
        .arg("-c")
        .arg(checkout("deploy/nats").join(file))
        .envs(env.iter().cloned())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .context("start nats-server")
}

/// The single server that is to grow, as `grow-from.conf` starts it.
pub struct Single {
    pub node: Node,
    leaf_port: u16,
    dir: TempDir,
}

impl Single {
    pub async fn start() -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("tapeline-single-").tempdir()?;
        let leaf_port = free_port()?;
        let extra = [("TAPELINE_LEAF_PORT", leaf_port.to_string())];
        let node = Node::start("grow-from.conf", dir.path().join("node"), "single", &extra)?;
        let single = Self { node, leaf_port, dir };
        single.bus("operator").await.with_context(|| single.node.log())?;
        Ok(single)
    }
    pub async fn bus(&self, user: &str) -> anyhow::Result<Bus> {
        bus(&self.node.url(), user).await
    }
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
    /// What a cluster's node connects to.
    pub fn leaf_url(&self) -> String {
        format!("nats://operator:{}@127.0.0.1:{}", Server::password("operator"), self.leaf_port)
    }
}

/// Three nodes of one cluster.
pub struct Cluster {
    pub nodes: Vec<Node>,
    _dir: TempDir,
}

impl Cluster {
    /// From `cluster.conf`, or from `grow-into.conf` with a link to `single`; waits until the cluster has a leader.
    pub async fn start(single: Option<&Single>) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("tapeline-cluster-").tempdir()?;
        let ports: Vec<u16> = (0..NODES).map(|_| free_port()).collect::<anyhow::Result<_>>()?;
        let mut nodes = Vec::new();
        for (i, port) in ports.iter().enumerate() {
            let mut extra = vec![
                ("TAPELINE_CLUSTER_PORT", port.to_string()),
                ("TAPELINE_ROUTE_PASSWORD", "secretroute".to_owned()),
                ("TAPELINE_SYNC_INTERVAL", "\"2m\"".to_owned()),
                ("TAPELINE_TAG", "\"sync:default\"".to_owned()),
            ];
            let route = |port: &u16| format!("nats://route:secretroute@127.0.0.1:{port}");
            let names = ["TAPELINE_ROUTE_1", "TAPELINE_ROUTE_2", "TAPELINE_ROUTE_3"];
            extra.extend(names.into_iter().zip(ports.iter().map(route)));
            let file = match single {
                Some(single) => {
                    extra.push(("TAPELINE_GROW_FROM", single.leaf_url()));
                    "grow-into.conf"
                }
                None => "cluster.conf",
            };
            let name = format!("node-{}", i + 1);
            nodes.push(Node::start(file, dir.path().join(&name), &name, &extra)?);
        }
        let cluster = Self { nodes, _dir: dir };
        cluster.ready().await.with_context(|| cluster.nodes.iter().map(Node::log).collect::<String>())?;
        Ok(cluster)
    }

    /// Waits until JetStream answers: the nodes found each other and have a leader.
    pub async fn ready(&self) -> anyhow::Result<()> {
        let operator = self.bus("operator").await?;
        wait_for("JetStream of the cluster", BOUND, || async {
            let info = operator.client().request("$JS.API.INFO", "".into()).await.ok()?;
            let info: serde_json::Value = serde_json::from_slice(&info.payload).ok()?;
            (info["error"].is_null() && info["domain"] == "tapeline").then_some(())
        })
        .await
    }
    pub async fn bus(&self, user: &str) -> anyhow::Result<Bus> {
        bus(&self.url(), user).await
    }
    pub fn url(&self) -> String {
        self.nodes.iter().map(Node::url).collect::<Vec<_>>().join(",")
    }
}

async fn bus(url: &str, user: &str) -> anyhow::Result<Bus> {
    let login = Login {
        url: url.to_owned(),
        stage: user.to_owned(),
        user: Some(user.to_owned()),
        password: Some(Server::password(user)),
    };
    let mut config = Config::default();
    config.connection.outage_s_max = BOUND.as_secs();
    Ok(Bus::connect(login, config).await?)
}

/// Runs `tapeline` as the operator of the server at `url`, to its end.
pub fn tapeline(url: &str, args: &[&str]) -> anyhow::Result<Output> {
    operators(url, args)?.output().context("run tapeline")
}

/// Starts `tapeline` as the operator, waits until `reached`, and kills exactly this process wherever it is.
pub async fn tapeline_killed<F>(url: &str, args: &[&str], reached: impl Fn() -> F) -> anyhow::Result<()>
where
    F: Future<Output = Option<()>>,
{
    let mut child = operators(url, args)?.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let waited = wait_for("the moment to kill", BOUND, &reached).await;
    // Dead already is fine: then it was quicker than the kill.
    let _ = child.kill();
    child.wait()?;
    waited
}

fn operators(url: &str, args: &[&str]) -> anyhow::Result<Command> {
    let mut command = Command::new(program("tapeline")?);
    let password = Server::password("operator");
    command.args(args).env("NATS_URL", url).env("NATS_PASSWORD", password).env_remove("NATS_USER").stdin(Stdio::null());
    Ok(command)
}

/// Its standard output, when it succeeded.
pub fn done(output: Output) -> anyhow::Result<String> {
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {error}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}

/// Its error, when it failed as a command does that refuses.
pub fn refused(output: Output) -> anyhow::Result<String> {
    ensure!(output.status.code() == Some(1), "ended with {}", output.status);
    Ok(String::from_utf8(output.stderr)?)
}

/// What a stream's leader says of it.
pub async fn info(operator: &Bus, stream: &str) -> anyhow::Result<Value> {
    let reply = operator.client().request(format!("$JS.API.STREAM.INFO.{stream}"), "".into()).await?;
    Ok(serde_json::from_slice(&reply.payload)?)
}

/// Waits until a stream has a leader and two followers, all as far as it is.
pub async fn whole(operator: &Bus, stream: &str) -> anyhow::Result<()> {
    wait_for(stream, 2 * BOUND, || async {
        let info = info(operator, stream).await.ok()?;
        info["cluster"]["leader"].as_str()?;
        let followers = info["cluster"]["replicas"].as_array()?;
        let current = followers.iter().all(|f| f["current"] == true && f["offline"] != json!(true));
        (current && followers.len() + 1 == NODES).then_some(())
    })
    .await
}
