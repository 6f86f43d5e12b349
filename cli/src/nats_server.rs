//! The nats-server to use: one at `NATS_URL`, one on PATH that is at least 2.12, or the pinned one that the setup
//! put into `.tapeline/bin`.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

/// The oldest server whose behaviour the protocol relies on.
const VERSION_MIN: (u32, u32) = (2, 12);

/// The server program, looked for in PATH, then `.tapeline/bin` here and beside the program.
pub fn find() -> anyhow::Result<PathBuf> {
    let mut tried = Vec::new();
    let in_path =
        std::env::var_os("PATH").into_iter().flat_map(|path| std::env::split_paths(&path).collect::<Vec<_>>());
    let mut places: Vec<PathBuf> = in_path.map(|dir| dir.join("nats-server")).collect();
    places.push(PathBuf::from(".tapeline/bin/nats-server"));
    if let Ok(exe) = std::env::current_exe() {
        places.extend(exe.ancestors().skip(1).take(4).map(|dir| dir.join(".tapeline/bin/nats-server")));
    }
    for place in places {
        if !place.is_file() {
            continue;
        }
        match version(&place) {
            Ok(found) if found >= VERSION_MIN => return Ok(place),
            Ok((major, minor)) => tried.push(format!("{} is {major}.{minor}", place.display())),
            Err(e) => tried.push(format!("{}: {e:#}", place.display())),
        }
    }
    bail!(
        "no nats-server of at least {}.{} (run scripts/setup.sh, or set NATS_URL){}{}",
        VERSION_MIN.0,
        VERSION_MIN.1,
        if tried.is_empty() { "" } else { "; " },
        tried.join("; ")
    )
}

fn version(program: &Path) -> anyhow::Result<(u32, u32)> {
    let out = Command::new(program).arg("--version").output().context("ask for its version")?;
    let text = String::from_utf8_lossy(&out.stdout);
    parse_version(&text).with_context(|| format!("`{}` names no version", text.trim()))
}

fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.rsplit_once('v')?.1.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// `preferred` when it is free on loopback, else any free port.
pub fn free_port(preferred: u16) -> anyhow::Result<u16> {
    if preferred != 0 && TcpListener::bind((Ipv4Addr::LOCALHOST, preferred)).is_ok() {
        return Ok(preferred);
    }
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("find a free port")?;
    Ok(listener.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_servers_version_line_is_read() {
        assert_eq!(super::parse_version("nats-server: v2.15.1\n"), Some((2, 15)));
        assert_eq!(super::parse_version("something else"), None);
    }
}
