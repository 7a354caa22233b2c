//! Lets in those who show a token of the ServiceAccount `ferrocast-reader` for the audience `ferrocast`.
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use ferrocast_core::actor::chain;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use kube::{Api, Client, api::PostParams};
use sha2::{Digest as _, Sha256};
use tokio::{sync::Semaphore, time::Instant};

use super::AUDIENCE;

/// How long a token that was accepted is not asked about again: what its revocation may lag behind.
const ACCEPTED_TIME: Duration = Duration::from_secs(60);
/// Accepted tokens remembered; only who may make such tokens can fill that.
const ACCEPTED_MAX: usize = 256;
/// Longest token, octets; the API server's are about a thousand.
const TOKEN_LEN_MAX: usize = 8 * 1024;
/// Questions to the API server under way at once.
const REVIEWS_MAX: usize = 4;
/// A refused token occupies one of [`REVIEWS_MAX`] for so long: whatever strangers send, they cause at most so many reviews a second.
const REFUSAL_PAUSE: Duration = Duration::from_millis(500);
/// Longest wait for one of [`REVIEWS_MAX`].
const TURN_WAIT_MAX: Duration = Duration::from_secs(3);
/// Longest wait for the API server.
const REVIEW_TIME_MAX: Duration = Duration::from_secs(3);

/// Why somebody is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no token, or it is not one of those.
    #[error("show a token of the ServiceAccount ferrocast-reader for the audience ferrocast")]
    Token,
    /// Too many wait to be let in.
    #[error("too many requests wait for their tokens to be reviewed: try again")]
    Busy,
    /// The API server cannot be asked.
    #[error("the API server cannot review the token now: try again")]
    Unavailable,
}

/// Whose a token is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reviewed {
    /// It is genuine and has not expired.
    pub authenticated: bool,
    /// The audiences asked about that it is for.
    pub audiences: Vec<String>,
    /// The user.
    pub username: String,
}

/// Asks whose a token is.
#[async_trait]
pub trait Reviews: Send + Sync + 'static {
    /// Whose it is.
    ///
    /// # Errors
    /// In words, if nobody can tell.
    async fn review(&self, token: &str) -> Result<Reviewed, String>;
}

/// Asks the API server.
pub struct ApiReviews(pub Client);

#[async_trait]
impl Reviews for ApiReviews {
    async fn review(&self, token: &str) -> Result<Reviewed, String> {
        let spec = TokenReviewSpec { audiences: Some(vec![AUDIENCE.to_owned()]), token: token.to_owned() };
        let review = TokenReview { spec, ..TokenReview::default() };
        let api: Api<TokenReview> = Api::all(self.0.clone());
        let answer = api.create(&PostParams::default(), &review).await.map_err(|error| chain(&error))?;
        let status = answer.status.unwrap_or_default();
        Ok(Reviewed {
            authenticated: status.authenticated.unwrap_or(false),
            audiences: status.audiences.unwrap_or_default(),
            username: status.user.and_then(|user| user.username).unwrap_or_default(),
        })
    }
}

type Hash = [u8; 32];

/// Lets in or not.
pub struct Gate {
    reviews: Box<dyn Reviews>,
    username: String,
    turns: Semaphore,
    /// Until when a token need not be asked about. Never locked across a wait.
    accepted: Mutex<HashMap<Hash, Instant>>,
}

impl Gate {
    /// A gate for the user `username`.
    #[must_use]
    pub fn new(reviews: Box<dyn Reviews>, username: String) -> Self {
        Self { reviews, username, turns: Semaphore::new(REVIEWS_MAX), accepted: Mutex::default() }
    }

    /// Is this the token of somebody who may know?
    ///
    /// # Errors
    /// Why not.
    ///
    /// # Cancellation
    /// Whoever goes away while being refused gives the turn back early; a connection costs more than a review.
    pub async fn admit(&self, token: &str) -> Result<(), Refusal> {
        if token.is_empty() || token.len() > TOKEN_LEN_MAX {
            return Err(Refusal::Token);
        }
        let hash: Hash = Sha256::digest(token).into();
        if self.is_known(&hash, Instant::now()) {
            return Ok(());
        }
        let turn = tokio::time::timeout(TURN_WAIT_MAX, self.turns.acquire()).await.map_err(|_| Refusal::Busy)?;
        let _turn = turn.map_err(|_| Refusal::Busy)?;
        let reviewed = tokio::time::timeout(REVIEW_TIME_MAX, self.reviews.review(token)).await;
        let reviewed = reviewed.unwrap_or_else(|_| Err("no answer in time".to_owned())).map_err(|error| {
            tracing::debug!(error, "a token cannot be reviewed");
            Refusal::Unavailable
        })?;
        let for_us = reviewed.audiences.iter().any(|audience| audience == AUDIENCE);
        if reviewed.authenticated && for_us && reviewed.username == self.username {
            self.remember(hash, Instant::now());
            return Ok(());
        }
        tokio::time::sleep(REFUSAL_PAUSE).await;
        Err(Refusal::Token)
    }

    fn is_known(&self, hash: &Hash, now: Instant) -> bool {
        let accepted = self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
        accepted.get(hash).is_some_and(|until| now < *until)
    }

    fn remember(&self, hash: Hash, now: Instant) {
        let mut accepted = self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
        accepted.retain(|_, until| now < *until);
        if accepted.len() >= ACCEPTED_MAX {
            let oldest = accepted.iter().min_by_key(|(_, until)| **until).map(|(hash, _)| *hash);
            oldest.map(|hash| accepted.remove(&hash));
        }
        accepted.insert(hash, now + ACCEPTED_TIME);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use super::*;

    /// Tokens say whose they are: user|audience.
    struct Told(Arc<AtomicUsize>);

    #[async_trait]
    impl Reviews for Told {
        async fn review(&self, token: &str) -> Result<Reviewed, String> {
            self.0.fetch_add(1, Ordering::Relaxed);
            let (user, audience) = token.split_once('|').ok_or("away")?;
            Ok(Reviewed { authenticated: true, audiences: vec![audience.to_owned()], username: user.to_owned() })
        }
    }

    fn gate() -> (Arc<Gate>, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        (Arc::new(Gate::new(Box::new(Told(asked.clone())), "reader".into())), asked)
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_readers_token_for_our_audience_is_let_in() {
        let (gate, _) = gate();
        for (token, want) in [
            ("reader|ferrocast", Ok(())),
            ("reader|other", Err(Refusal::Token)),
            ("admin|ferrocast", Err(Refusal::Token)),
            ("", Err(Refusal::Token)),
            ("nobody can tell", Err(Refusal::Unavailable)),
        ] {
            assert_eq!(gate.admit(token).await, want, "{token}");
        }
        assert_eq!(gate.admit(&"x|ferrocast".repeat(TOKEN_LEN_MAX)).await, Err(Refusal::Token));
    }

    #[tokio::test(start_paused = true)]
    async fn accepted_token_is_asked_about_once_a_minute() {
        let (gate, asked) = gate();
        for _ in 0..3 {
            gate.admit("reader|ferrocast").await.unwrap();
        }
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        tokio::time::advance(ACCEPTED_TIME).await;
        gate.admit("reader|ferrocast").await.unwrap();
        assert_eq!(asked.load(Ordering::Relaxed), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn strangers_cause_few_reviews_whatever_they_send() {
        let (gate, asked) = gate();
        let tries = (0..100).map(|n| {
            let gate = gate.clone();
            async move { gate.admit(&format!("stranger{n}|ferrocast")).await }
        });
        let answers = futures::future::join_all(tries).await;
        let turns = TURN_WAIT_MAX.as_millis() / REFUSAL_PAUSE.as_millis();
        assert!(asked.load(Ordering::Relaxed) <= REVIEWS_MAX * (usize::try_from(turns).unwrap() + 1));
        assert!(answers.iter().all(Result::is_err) && answers.contains(&Err(Refusal::Busy)));
    }

    #[tokio::test(start_paused = true)]
    async fn accepted_tokens_remembered_are_few() {
        let (gate, _) = gate();
        let now = Instant::now();
        for n in 0..2 * ACCEPTED_MAX {
            gate.remember(Sha256::digest(n.to_string()).into(), now + Duration::from_millis(1));
        }
        assert_eq!(gate.accepted.lock().unwrap().len(), ACCEPTED_MAX);
    }
}
