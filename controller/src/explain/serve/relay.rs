//! Passes a question on to the leading controller, for those who reach the nodes but not the Pods.
use std::time::Duration;

use ferrocast_core::actor::chain;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};

use super::{AUTHORITY_KEY, AUTHORITY_MAP, CONTROLLER_KEY, Question, server_name};
use crate::explain::{Explanation, asker::Asker};

/// Longest wait for the controller; less than the one who asks waits for us.
const RELAY_TIME_MAX: Duration = Duration::from_secs(2);

/// Asks the controller for others, with their token.
pub struct Relay {
    /// The API server.
    pub client: Client,
    /// Where Ferrocast runs.
    pub namespace: String,
}

impl Relay {
    /// What the controller answers.
    ///
    /// # Errors
    /// In words, why it does not.
    pub(super) async fn ask(&self, question: &Question, token: &str) -> Result<Explanation, String> {
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace);
        let found = tokio::time::timeout(RELAY_TIME_MAX, maps.get(AUTHORITY_MAP)).await;
        let found = found.map_err(|_| "the API server does not answer in time".to_owned())?;
        let data = found.map_err(|error| chain(&error))?.data.unwrap_or_default();
        let at = data.get(CONTROLLER_KEY).ok_or("the controller does not say where it answers")?;
        let addr = at.parse().map_err(|_| format!("{at} is no address"))?;
        let authority = data.get(AUTHORITY_KEY).map(String::as_str).unwrap_or_default();
        let asker = Asker::new(authority, server_name(&self.namespace), token.to_owned(), RELAY_TIME_MAX)?;
        let question = Question { to_controller: false, ..question.clone() };
        asker.ask(addr, &question).await.map_err(|why| format!("the controller at {at}: {}", why.message))
    }
}
