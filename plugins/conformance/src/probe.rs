//! A look at the network, past what the plugin says of it.
use std::{collections::BTreeMap, fmt, process::Stdio, sync::Arc, time::Duration};

use ipnet::IpNet;
use tokio::{process::Command, time::timeout};

use crate::set::is_ours;

/// How long a command may take: a probe asks a daemon, it does not wait for one.
const COMMAND_TIME_MAX: Duration = Duration::from_secs(30);

/// What the network has: whether each prefix is draining.
pub type Network = BTreeMap<IpNet, bool>;

/// A way to see what the network has.
#[derive(Clone)]
pub enum Probe {
    /// A command of the shell that prints one `PREFIX` or `PREFIX draining` per line.
    Command(String),
    /// A function of this program.
    Function(Arc<dyn Fn() -> Network + Send + Sync>),
}

impl fmt::Debug for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command(command) => f.debug_tuple("Command").field(command).finish(),
            Self::Function(_) => f.write_str("Function"),
        }
    }
}

impl Probe {
    /// What the network has of the prefixes that the checks use.
    pub(crate) async fn look(&self) -> Result<Network, String> {
        let mut network = match self {
            Self::Command(command) => read(&run(command).await?)?,
            Self::Function(function) => function(),
        };
        network.retain(|prefix, _| is_ours(prefix));
        Ok(network)
    }
}

fn read(printed: &str) -> Result<Network, String> {
    let mut network = Network::new();
    for line in printed.lines().filter(|line| !line.trim().is_empty()) {
        let mut words = line.split_whitespace();
        let prefix = words.next().unwrap_or_default();
        let prefix: IpNet = prefix.parse().map_err(|error| format!("the probe printed {line:?}: {error}"))?;
        match words.next() {
            None => drop(network.insert(prefix, false)),
            Some("draining") => drop(network.insert(prefix, true)),
            Some(word) => {
                return Err(format!("the probe printed {line:?}: {word:?} is neither nothing nor \"draining\""));
            }
        }
    }
    Ok(network)
}

/// Runs a command of the shell and returns what it prints.
///
/// # Errors
/// It cannot be run, fails, or takes too long.
pub(crate) async fn run(command: &str) -> Result<String, String> {
    let mut shell = Command::new("sh");
    shell.args(["-c", command]).stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(COMMAND_TIME_MAX, shell.output()).await;
    let output = output.map_err(|_| format!("{command:?} did not end in {COMMAND_TIME_MAX:?}"))?;
    let output = output.map_err(|error| format!("{command:?} cannot be run: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    Err(format!("{command:?} failed ({}): {}", output.status, complaint.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probe_is_read_line_by_line_and_a_line_that_is_none_is_quoted() {
        let network = read("198.18.0.1/32\n\n2001:db8::2/128 draining\n").unwrap();
        assert_eq!(network.values().copied().collect::<Vec<_>>(), [false, true]);
        for wrong in ["198.18.0.1/32 gone", "nothing"] {
            assert!(read(wrong).unwrap_err().contains(wrong), "{wrong}");
        }
    }
}
