//! Processes that are measured: they end when dropped, and tell what they used.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

/// Longest wait for a process that starts.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// Pause between looks whether it listens.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(1);

/// A process; killed when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    id: u32,
}

impl Process {
    /// Starts it where no `.env` changes what is measured, without any of the service's variables.
    pub(crate) fn start(
        program: &Path,
        arguments: &[&str],
        settings: &[(&str, String)],
    ) -> Result<Self> {
        let mut command = Command::new(program);
        for variable in tollgate::config::VARIABLES {
            command.env_remove(variable.name);
        }
        let child = command
            .args(arguments)
            .envs(settings.iter().map(|(name, value)| (name, value)))
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{} cannot be started", program.display()))?;
        let id = child.id().context("it ended at once")?;
        Ok(Self { child, id })
    }

    /// Waits until it accepts connections at `address`.
    pub(crate) async fn until_listening(&mut self, address: SocketAddr) -> Result<()> {
        let begin = Instant::now();
        while TcpStream::connect(address).await.is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended before it listened: {status}");
            }
            if begin.elapsed() > PATIENCE {
                bail!("it does not listen at {address}");
            }
            sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// CPU time so far, user and system, of all its threads, in microseconds. By its own clock (`clock_getcpuclockid`):
    /// `/proc` tells hundredths of a second, which are too few in a short time.
    #[cfg(target_os = "linux")]
    pub(crate) fn cpu_us(&self) -> Result<u64> {
        use nix::time::ClockId;

        let id = nix::unistd::Pid::from_raw(i32::try_from(self.id)?);
        let so_far = ClockId::pid_cpu_clock_id(id).and_then(ClockId::now);
        let so_far = so_far.with_context(|| format!("process {id} is gone"))?;
        Ok(u64::try_from(Duration::from(so_far).as_micros())?)
    }

    #[cfg(not(target_os = "linux"))]
    pub(crate) fn cpu_us(&self) -> Result<u64> {
        bail!("CPU time can be measured on Linux only")
    }

    /// Resident memory, in bytes.
    pub(crate) fn resident(&self) -> Result<u64> {
        self.memory("VmRSS")
    }

    /// Most resident memory that it ever had, in bytes.
    pub(crate) fn peak(&self) -> Result<u64> {
        self.memory("VmHWM")
    }

    fn memory(&self, name: &str) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id))
            .with_context(|| format!("process {} is gone", self.id))?;
        bytes(&status, name).with_context(|| format!("no {name}"))
    }
}

fn bytes(status: &str, name: &str) -> Option<u64> {
    let of = |line: &str| Some(line.strip_prefix(name)?.strip_prefix(':')?.to_owned());
    let figure = status.lines().find_map(of)?;
    let kilobytes: u64 = figure.strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// An address on loopback that nobody listens on.
pub(crate) fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_found_by_its_whole_name() {
        let status = "Name:\tVmRSS\nVmHWM:\t   20480 kB\nVmRSS:\t   10240 kB\n";
        assert_eq!(bytes(status, "VmRSS"), Some(10 << 20));
        assert_eq!(bytes(status, "VmHWM"), Some(20 << 20));
        assert_eq!(bytes(status, "Vm"), None);
    }
}
