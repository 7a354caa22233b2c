//! Every kind, version and field of the configuration on a real API server: accepted, kept, limited and explained.

mod api;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail, ensure};
use api::World;
use ferrocast_tests::objects::CONFIG_NAMESPACE;
use ferrocast_tests::{cases, runner};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray,
};
use kube::Api;
use kube::api::ListParams;
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// Words a description has at least: fewer only repeat the name of the field.
const WORDS_MIN: usize = 2;

fn main() -> ExitCode {
    let cases = cases![
        every_field_is_accepted_and_kept,
        every_limit_is_kept_to,
        every_field_is_explained_readably,
        what_is_stored_as_one_version_is_served_as_the_other,
    ];
    runner::main::<World>("api_fields", env!("CARGO_TARGET_TMPDIR"), cases)
}

/// One kind in one version.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sample {
    kind: String,
    version: String,
    #[serde(default)]
    base: Option<Map<String, Value>>,
    #[serde(default)]
    defaults: Map<String, Value>,
    fields: Vec<Map<String, Value>>,
    #[serde(default)]
    refused: Vec<Refused>,
    #[serde(default)]
    status: Option<Value>,
}

/// What the API server says no to.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Refused {
    #[serde(default)]
    spec: Map<String, Value>,
    #[serde(default)]
    status: Option<Value>,
    says: String,
}

#[derive(Deserialize)]
struct Samples {
    kinds: Vec<Sample>,
}

impl Sample {
    /// The base with these fields instead.
    fn object(&self, name: &str, fields: &Map<String, Value>) -> Value {
        let kind = self.kind.to_lowercase();
        let metadata = json!({"namespace": CONFIG_NAMESPACE, "name": format!("{kind}-{name}")});
        let mut object = json!({"apiVersion": self.version, "kind": self.kind, "metadata": metadata});
        if let Some(base) = &self.base {
            let mut spec = base.clone();
            spec.extend(fields.clone());
            spec.retain(|_, value| !value.is_null());
            object["spec"] = Value::Object(spec);
        }
        object
    }
}

fn samples() -> Result<Vec<Sample>> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/api_fields/manifests.yaml");
    let samples: Samples = serde_saphyr::from_str(&std::fs::read_to_string(file)?)?;
    Ok(samples.kinds)
}

/// Is everything of `sent` in `stored`, as it was sent?
fn keeps(stored: &Value, sent: &Value) -> bool {
    match (stored, sent) {
        (Value::Object(stored), Value::Object(sent)) => {
            sent.iter().all(|(key, value)| stored.get(key).is_some_and(|kept| keeps(kept, value)))
        }
        (Value::Array(stored), Value::Array(sent)) => {
            stored.len() == sent.len() && stored.iter().zip(sent).all(|(kept, value)| keeps(kept, value))
        }
        _ => stored == sent,
    }
}

/// The paths of the fields that a value has, without indices: `spec.quotas.addressesMax`.
fn paths_of(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let path = format!("{path}.{key}");
                paths_of(value, &path, found);
                found.insert(path);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| paths_of(item, path, found)),
        _ => {}
    }
}

/// The schema of what a field holds: of its items, if it is a list.
fn inner(schema: &JSONSchemaProps) -> &JSONSchemaProps {
    match &schema.items {
        Some(JSONSchemaPropsOrArray::Schema(items)) => items,
        _ => schema,
    }
}

/// Calls `each` with the path and the schema of every field below.
fn walk(schema: &JSONSchemaProps, path: &str, each: &mut dyn FnMut(&str, &JSONSchemaProps)) {
    for (name, field) in inner(schema).properties.iter().flatten() {
        let path = format!("{path}.{name}");
        each(&path, field);
        walk(field, &path, each);
    }
}

/// `spec` and `status` of a version, as the API server has them.
async fn schema_of(world: &World, sample: &Sample) -> Result<Vec<(&'static str, JSONSchemaProps)>> {
    let api: Api<CustomResourceDefinition> = Api::all(world.cluster.client());
    let (group, version) = sample.version.split_once('/').context("no group")?;
    let all = api.list(&ListParams::default()).await?;
    let of_kind = |crd: &&CustomResourceDefinition| crd.spec.group == group && crd.spec.names.kind == sample.kind;
    let found = all.items.iter().find(of_kind).with_context(|| format!("no {}", sample.kind))?;
    let version =
        found.spec.versions.iter().find(|known| known.name == version && known.served).context("not served")?;
    let schema = version.schema.as_ref().and_then(|schema| schema.open_api_v3_schema.as_ref()).context("no schema")?;
    let parts = schema.properties.clone().unwrap_or_default();
    Ok(["spec", "status"].into_iter().filter_map(|part| Some((part, parts.get(part)?.clone()))).collect())
}

async fn every_field_is_accepted_and_kept(world: &mut World) -> Result<()> {
    let samples = samples()?;
    let (mut manifests, mut missing) = (0, Vec::new());
    for sample in &samples {
        let mut used = BTreeSet::new();
        let mut objects = vec![sample.object("base", &Map::new())];
        objects.extend(sample.fields.iter().enumerate().map(|(i, fields)| sample.object(&i.to_string(), fields)));
        for (index, object) in objects.iter().enumerate() {
            world.cluster.apply(object).await?;
            let mut sent = object.clone();
            if let Some(status) = sample.status.as_ref().filter(|_| index == 0) {
                world.cluster.merge_status(object, status).await?;
                sent["status"] = status.clone();
            }
            let stored = world.cluster.stored(object).await?;
            for part in ["spec", "status"].into_iter().filter(|part| sent.get(part).is_some()) {
                let kept = stored.get(part).cloned().unwrap_or_default();
                ensure!(keeps(&kept, &sent[part]), "sent {}, stored {kept}", sent[part]);
                paths_of(&sent[part], part, &mut used);
            }
            for (field, value) in sample.defaults.iter().filter(|_| index == 0) {
                let found = &stored["spec"][field];
                ensure!(found == value, "{}: the default of {field} is {value}, found {found}", sample.kind);
            }
            manifests += 1;
        }
        for (part, schema) in schema_of(world, sample).await? {
            walk(&schema, part, &mut |path, _| {
                if !used.contains(path) {
                    missing.push(format!("{} {} {path}", sample.version, sample.kind));
                }
            });
        }
        world.cluster.delete_all(&objects).await?;
    }
    ensure!(missing.is_empty(), "no manifest uses {missing:#?}");
    println!("     {manifests} manifests");
    every_kind_is_there(world, &samples).await
}

/// A kind or version that is new must come into the table.
async fn every_kind_is_there(world: &World, samples: &[Sample]) -> Result<()> {
    let api: Api<CustomResourceDefinition> = Api::all(world.cluster.client());
    for crd in api.list(&ListParams::default()).await?.items {
        for version in crd.spec.versions.iter().filter(|version| version.served) {
            let version = format!("{}/{}", crd.spec.group, version.name);
            let kind = &crd.spec.names.kind;
            let known = samples.iter().any(|sample| sample.kind == *kind && sample.version == version);
            ensure!(known, "no manifest of {version} {kind}");
        }
        let conditions = crd.status.and_then(|status| status.conditions).unwrap_or_default();
        let wrong = conditions.iter().find(|c| c.type_ == "NonStructuralSchema" && c.status == "True");
        ensure!(wrong.is_none(), "{:?}: {wrong:?}", crd.metadata.name);
    }
    Ok(())
}

async fn every_limit_is_kept_to(world: &mut World) -> Result<()> {
    let samples = samples()?;
    for sample in &samples {
        for (index, refused) in sample.refused.iter().enumerate() {
            let object = sample.object(&format!("refused-{index}"), &refused.spec);
            let answer = match &refused.status {
                None => world.cluster.apply(&object).await,
                Some(status) => {
                    world.cluster.apply(&object).await?;
                    let answer = world.cluster.merge_status(&object, status).await;
                    world.cluster.delete(&object).await?;
                    answer
                }
            };
            let Err(error) = answer else { bail!("stored: {object}") };
            let error = format!("{error:#}");
            ensure!(error.contains(&refused.says), "{object}: {:?} is not in {error}", refused.says);
        }
    }
    // A session's graceful restart is agreed when it opens: MetalLB forbids to change it, and so do we.
    let peer = samples.iter().find(|s| s.kind == "BGPPeer" && s.version.ends_with("v1beta2")).context("no BGPPeer")?;
    let fields = |on: bool| Map::from_iter([("enableGracefulRestart".to_owned(), json!(on))]);
    world.cluster.apply(&peer.object("immutable", &fields(true))).await?;
    let Err(error) = world.cluster.apply(&peer.object("immutable", &fields(false))).await else { bail!("changed") };
    ensure!(format!("{error:#}").contains("EnableGracefulRestart cannot be changed after creation"), "{error:#}");
    world.cluster.delete(&peer.object("immutable", &Map::new())).await
}

/// Whitespace as one blank: `kubectl` breaks lines.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

async fn every_field_is_explained_readably(world: &mut World) -> Result<()> {
    let mut fields = 0;
    for sample in samples()? {
        for (part, schema) in schema_of(world, &sample).await? {
            // One question for each field that has fields: the answer lists them with their descriptions.
            let mut questions = vec![(part.to_owned(), schema.clone())];
            walk(&schema, part, &mut |path, field| {
                if inner(field).properties.is_some() {
                    questions.push((path.to_owned(), field.clone()));
                }
            });
            for (path, schema) in questions {
                let Some(below) = &inner(&schema).properties else { continue };
                let subject = format!("{}.{path}", sample.kind.to_lowercase());
                let version = format!("--api-version={}", sample.version);
                let answer = one_line(&world.plane.kubectl(&["explain", &subject, &version], None)?);
                for (name, field) in below {
                    let text = one_line(field.description.as_deref().unwrap_or_default());
                    let readable = text.split(' ').count() >= WORDS_MIN
                        && text.starts_with(|c: char| c.is_uppercase() || c.is_ascii_digit())
                        && text.ends_with(['.', ')', ':']);
                    ensure!(readable, "{subject}.{name} is not described readably: {text:?}");
                    ensure!(answer.contains(&text), "{subject}.{name}: {text:?} is not in {answer}");
                    fields += 1;
                }
            }
        }
    }
    println!("     {fields} fields");
    Ok(())
}

/// Conversion is `None`: the fields that both versions have agree in shape.
async fn what_is_stored_as_one_version_is_served_as_the_other(world: &mut World) -> Result<()> {
    let samples = samples()?;
    let of = |version: &str| samples.iter().find(|s| s.kind == "BGPPeer" && s.version.ends_with(version));
    let (old, new) = (of("v1beta1").context("no v1beta1")?, of("v1beta2").context("no v1beta2")?);
    for (index, fields) in old.fields.iter().enumerate() {
        let sent = old.object(&format!("old-{index}"), fields);
        world.cluster.apply(&sent).await?;
        let mut asked = sent.clone();
        asked["apiVersion"] = json!(new.version);
        let stored = world.cluster.stored(&asked).await?;
        ensure!(keeps(&stored["spec"], &sent["spec"]), "as {} {}, sent {}", new.version, stored["spec"], sent["spec"]);
        world.cluster.delete(&sent).await?;
    }
    Ok(())
}
