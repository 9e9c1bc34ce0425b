//! A network namespace with one way in, which can be made to swallow packets. Linux, and root, only.

use std::net::Ipv4Addr;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Removed when dropped, and the way in with it.
pub(crate) struct Namespace {
    name: String,
    /// The end of the way in that is outside.
    outer: String,
    /// The address at its other end.
    inside: Ipv4Addr,
}

impl Namespace {
    /// # Errors
    ///
    /// Why there can be none here.
    pub(crate) fn make(name: &str) -> Result<Self> {
        if run("id", &["-u"])?.trim() != "0" {
            bail!("a network namespace needs root");
        }
        for tool in ["ip", "iptables"] {
            run(tool, &["-V"]).with_context(|| format!("`{tool}` is missing"))?;
        }
        // Names of interfaces are short; the addresses are of the network that is set aside for benches (RFC 2544).
        let id = std::process::id();
        let [.., high, low] = id.to_be_bytes();
        let (outer, inner) = (format!("tga{id}"), format!("tgb{id}"));
        let end = |last| Ipv4Addr::new(198, 18 + high % 2, low, last);
        let (outside, inside) = (format!("{}/30", end(1)), format!("{}/30", end(2)));
        run("ip", &["netns", "add", name])?;
        // From here on it is removed whatever happens.
        let namespace = Self {
            name: name.to_owned(),
            outer,
            inside: end(2),
        };
        let outer = &namespace.outer;
        let peers = ["type", "veth", "peer", "name", &inner, "netns", name];
        run("ip", &[&["link", "add", outer][..], &peers].concat())?;
        run("ip", &["addr", "add", &outside, "dev", outer])?;
        run("ip", &["link", "set", outer, "up"])?;
        namespace.run(&["ip", "addr", "add", &inside, "dev", &inner])?;
        namespace.run(&["ip", "link", "set", &inner, "up"])?;
        namespace.run(&["ip", "link", "set", "lo", "up"])?;
        namespace.run(&["iptables", "-L", "-n"])?;
        Ok(namespace)
    }

    /// The address inside.
    pub(crate) fn inside(&self) -> Ipv4Addr {
        self.inside
    }

    /// What goes before a command that is to run inside.
    pub(crate) fn prefix(&self) -> Vec<String> {
        ["ip", "netns", "exec", &self.name]
            .map(str::to_owned)
            .into()
    }

    /// From now on every packet is swallowed, either way.
    pub(crate) fn swallow(&self) -> Result<()> {
        for chain in ["INPUT", "OUTPUT"] {
            self.run(&["iptables", "-A", chain, "-j", "DROP"])?;
        }
        Ok(())
    }

    pub(crate) fn heal(&self) -> Result<()> {
        self.run(&["iptables", "-F"])
    }

    fn run(&self, words: &[&str]) -> Result<()> {
        let words = [&["netns", "exec", &self.name], words].concat();
        run("ip", &words).map(|_| ())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // It would go with the namespace, but only some time later.
        let _ = run("ip", &["link", "del", &self.outer]);
        if let Err(error) = run("ip", &["netns", "del", &self.name]) {
            eprintln!("the network namespace {} is left: {error:#}", self.name);
        }
    }
}

fn run(program: &str, arguments: &[&str]) -> Result<String> {
    let what = || format!("{program} {}", arguments.join(" "));
    let output = Command::new(program)
        .args(arguments)
        .output()
        .with_context(what)?;
    if !output.status.success() {
        let told = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        bail!("{}: {told}", what());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
