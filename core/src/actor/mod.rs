//! Supervised actors: the only place in the workspace that spawns tasks.
//!
//! An actor owns its state, has a name, a stop token and a [`RestartPolicy`]. Expected trouble (a refused dial, a lost
//! session, a watch error, bad input) is handled inside the actor; a restart is for a panic or a broken invariant.
mod policy;
mod supervisor;

pub use policy::{Exhausted, RestartPolicy};
pub use supervisor::{Child, Escalation, Supervisor};

use std::future::Future;

pub use tokio_util::sync::CancellationToken;

/// Why one incarnation of an actor ended early.
#[derive(Debug, thiserror::Error)]
pub enum ActorError {
    /// The channel named here closed: its owner is gone.
    #[error("upstream `{0}` closed")]
    Upstream(&'static str),
    /// An invariant is broken; the supervisor restarts the actor.
    #[error(transparent)]
    Failed(#[from] Box<dyn std::error::Error + Send + Sync>),
}

/// A long-lived loop. Fields survive a restart; locals of `run` do not.
pub trait Actor: Send + 'static {
    /// Stable name: log span and metric label.
    const NAME: &'static str;

    /// Which one of several with the same name, e.g. the peer's name; empty if there is only one.
    fn instance(&self) -> String {
        String::new()
    }

    /// Runs one incarnation. `Ok` means "finished on purpose" and is not restarted.
    ///
    /// # Cancellation
    /// Must return promptly once `stop` fires; nothing may be awaited that `stop` cannot interrupt.
    fn run(&mut self, stop: CancellationToken) -> impl Future<Output = Result<(), ActorError>> + Send;
}

/// Waits until then; without a time, for ever.
pub async fn sleep_until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// The whole chain of an error's causes in one line.
#[must_use]
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let next_text = next.to_string();
        if !text.contains(&next_text) {
            text.push_str(": ");
            text.push_str(&next_text);
        }
        cause = next.source();
    }
    text
}
