//! `ferrocast validate`: everything that is wrong with configuration objects in manifests, without a cluster.
//!
//! The rules are those of the running system (`ferrocast_core::config`). What is not in the files does not exist, but for Secrets,
//! which are seldom kept beside manifests: one that is missing is a warning.
use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use anyhow::Context as _;
use ferrocast_core::{
    config::{
        Config, Networks, Password, Problem, Resource, Resources, Severity, Surroundings, build, check_surroundings,
    },
    model::{Labels, Node, ObjectKey, Service, ServiceKey},
};
use imbl::OrdMap;
use k8s_openapi::{api::core::v1 as core, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use serde_json::{Value, json};

use crate::{
    cli::{ReportFormat, ValidateArgs},
    cluster::{
        convert,
        resources::{self, Kind},
    },
};

/// Largest manifest read, octets: as for the sandbox.
const FILE_LEN_MAX: u64 = 8 << 20;
/// Version of the shape of the JSON report; fields are only added within a version.
const REPORT_VERSION: u32 = 1;
/// Versions in which the API server takes objects of MetalLB's group.
const SERVED: [&str; 2] = ["v1beta1", "v1beta2"];

/// Runs the command.
///
/// # Errors
/// If a file cannot be read or is not YAML; the text names it.
pub fn run(args: &ValidateArgs) -> anyhow::Result<ExitCode> {
    let report = report(&texts(&args.paths)?, &args.namespace)?;
    match args.output {
        ReportFormat::Text => print!("{}", report.text()),
        ReportFormat::Json => println!("{:#}", report.json()),
    }
    Ok(if report.has_error() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The manifests by the names that reports call them by, in order.
fn texts(paths: &[PathBuf]) -> anyhow::Result<Vec<(String, String)>> {
    let standard_input = [PathBuf::from("-")];
    let mut texts = Vec::new();
    for path in if paths.is_empty() { &standard_input[..] } else { paths } {
        if path.as_os_str() == "-" {
            let mut text = String::new();
            io::stdin().take(FILE_LEN_MAX).read_to_string(&mut text).context("cannot read standard input")?;
            texts.push(("-".to_owned(), text));
            continue;
        }
        for file in files(path).with_context(|| format!("cannot read {}", path.display()))? {
            let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
            texts.push((file.display().to_string(), text));
        }
    }
    Ok(texts)
}

/// The file, or the manifests in the directory, in order of name.
fn files(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !fs::metadata(path)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let is_manifest = |file: &PathBuf| {
        file.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json")
            && fs::metadata(file).is_ok_and(|m| m.is_file() && m.len() <= FILE_LEN_MAX)
    };
    let all: Vec<PathBuf> = fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    let mut files: Vec<PathBuf> = all.into_iter().filter(is_manifest).collect();
    files.sort();
    Ok(files)
}

/// One configuration object, and where it is written.
#[derive(Debug)]
struct Entry {
    file: String,
    namespace: String,
    problems: Vec<Problem>,
}

/// What is said of all objects.
#[derive(Debug, Default)]
struct Report {
    /// By object and namespace.
    entries: BTreeMap<(ObjectKey, String), Entry>,
}

/// What the manifests hold.
#[derive(Debug, Default)]
struct Input {
    report: Report,
    resources: Resources,
    nodes: OrdMap<Arc<str>, Arc<Node>>,
    namespaces: OrdMap<Arc<str>, Arc<Labels>>,
    services: OrdMap<ServiceKey, Arc<Service>>,
}

/// Reads the manifests and judges the configuration objects in them.
fn report(texts: &[(String, String)], namespace: &str) -> anyhow::Result<Report> {
    let mut input = Input::default();
    input.resources.namespace = namespace.into();
    for (file, text) in texts {
        let documents: Vec<Value> =
            serde_saphyr::from_multiple(text).map_err(|error| anyhow::anyhow!("{file}: not YAML: {error}"))?;
        for document in documents {
            input.add(file, &document).with_context(|| file.clone())?;
        }
    }
    let config = build(&input.resources);
    let around = Surroundings {
        nodes: &input.nodes,
        namespaces: &input.namespaces,
        services: &input.services,
        networks: Networks::default(),
    };
    let found = config.problems.iter().cloned().chain(check_surroundings(&input.resources, &config, &around));
    let found: Vec<Problem> = found.chain(unsupported(&config)).map(|p| lenient(p, &input.resources)).collect();
    let mut report = input.report;
    for problem in found {
        let entry = report.entries.get_mut(&(problem.object.clone(), namespace.to_owned()));
        entry.into_iter().for_each(|entry| entry.problems.push(problem.clone()));
    }
    for entry in report.entries.values_mut() {
        entry.problems.sort();
        entry.problems.dedup();
    }
    Ok(report)
}

/// A Secret that is not in the files may well be in the cluster.
fn lenient(problem: Problem, resources: &Resources) -> Problem {
    let unseen = problem.rule == "secretUnusable" && !resources.passwords.contains_key(&*problem.value);
    Problem { severity: if unseen { Severity::Warning } else { problem.severity }, ..problem }
}

/// What valid peers ask for that cannot be done.
fn unsupported(config: &Config) -> Vec<Problem> {
    let waits = |peer: &ferrocast_core::config::Peer| {
        peer.password_missing.is_some() || peer.bfd_missing.is_some() || peer.session.tcp_ao_missing.is_some()
    };
    let wrong = config.peers.values().filter(|peer| !waits(peer)).filter_map(|peer| {
        let why = ferrocast_bgp::support(peer).err()?;
        Some(Problem {
            object: ObjectKey { kind: Kind::Peer.name(), name: peer.name.clone() },
            field: String::new(),
            value: String::new(),
            rule: "unsupported",
            message: format!("not dialled: {why}"),
            suggestion: String::new(),
            severity: Severity::Warning,
        })
    });
    wrong.collect()
}

fn decode<T: serde::de::DeserializeOwned>(document: &Value) -> anyhow::Result<T> {
    let text = |at: &str| document.pointer(at).and_then(Value::as_str).unwrap_or("?").to_owned();
    let named = || format!("{} {}", text("/kind"), text("/metadata/name"));
    serde_json::from_value(document.clone()).with_context(named)
}

impl Input {
    fn add(&mut self, file: &str, document: &Value) -> anyhow::Result<()> {
        let kind = document.get("kind").and_then(Value::as_str).unwrap_or_default();
        if let ("List", Some(items)) = (kind, document.get("items").and_then(Value::as_array)) {
            return items.iter().try_for_each(|item| self.add(file, item));
        }
        match kind {
            "Service" => {
                let mut object: core::Service = decode(document)?;
                object.metadata.namespace.get_or_insert_with(|| "default".to_owned());
                let service = convert::service(&object, false);
                self.services.insert(service.key.clone(), Arc::new(service));
            }
            "Node" => {
                let node = convert::node(&decode(document)?);
                self.nodes.insert(node.name.clone(), Arc::new(node));
            }
            "Namespace" => {
                let object: core::Namespace = decode(document)?;
                let name = object.metadata.name.clone().unwrap_or_default();
                self.namespaces.insert(name.into(), Arc::new(convert::labels(&object.metadata)));
            }
            "Secret" => self.add_secret(&decode(document)?),
            _ => {
                let version = document.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
                if let Some(kind) = Kind::named(kind).filter(|kind| version.split('/').next() == Some(kind.group())) {
                    self.add_object(file, kind, version, document)?;
                }
            }
        }
        Ok(())
    }

    fn add_secret(&mut self, secret: &core::Secret) {
        let name: Arc<str> = secret.metadata.name.as_deref().unwrap_or_default().into();
        let written = secret.string_data.as_ref().and_then(|d| d.get("password").cloned());
        let encoded = || String::from_utf8(secret.data.as_ref()?.get("password")?.0.clone()).ok();
        let missing = || format!("Secret {name} has no key `password`");
        let password = written.or_else(encoded).map(|p| Password(p.into())).ok_or_else(missing);
        self.resources.passwords.insert(name, password);
    }

    fn add_object(&mut self, file: &str, kind: Kind, version: &str, document: &Value) -> anyhow::Result<()> {
        let wanted = self.resources.namespace.to_string();
        let text = |at: &str| document.pointer(at).and_then(Value::as_str).map(str::to_owned);
        // Metadata of a wrong shape is no reason not to look at the spec.
        let meta = document.get("metadata").cloned().unwrap_or_default();
        let meta: ObjectMeta = serde_json::from_value(meta)
            .unwrap_or_else(|_| ObjectMeta { name: text("/metadata/name"), ..ObjectMeta::default() });
        let mut resource = resources::resource(kind, &meta, document);
        let key = resource.meta.key.clone();
        if key.name.is_empty() {
            anyhow::bail!("{} without metadata.name", kind.name());
        }
        let namespace = meta.namespace.unwrap_or_else(|| wanted.clone());
        let served = kind.is_own() || SERVED.iter().any(|v| version.ends_with(&format!("/{v}")));
        if !served || (kind.is_own() && version != kind.api_version()) {
            resource.problems.push(wrong_version(&key, kind, version));
        }
        let at = (key.clone(), namespace.clone());
        if let Some(first) = self.report.entries.get_mut(&at) {
            first.problems.push(twice(key, file, &first.file));
            return Ok(());
        }
        let mut problems = Vec::new();
        if namespace == wanted {
            self.resources.objects.insert(key, Arc::new(resource));
        } else {
            problems = alone(resource, &self.resources.namespace);
            problems.push(Problem::wrong_namespace(key, &namespace, &wanted));
        }
        self.report.entries.insert(at, Entry { file: file.to_owned(), namespace, problems });
        Ok(())
    }
}

/// What is wrong with an object of another namespace, which no other object belongs to.
fn alone(resource: Resource, namespace: &Arc<str>) -> Vec<Problem> {
    let objects = [(resource.meta.key.clone(), Arc::new(resource))].into_iter().collect();
    let config = build(&Resources { namespace: namespace.clone(), objects, ..Resources::default() });
    config.problems.into_iter().filter(|p| p.severity == Severity::Error && !p.may_mend_itself()).collect()
}

fn wrong_version(key: &ObjectKey, kind: Kind, version: &str) -> Problem {
    Problem {
        object: key.clone(),
        field: "apiVersion".to_owned(),
        value: version.to_owned(),
        rule: "wrongType",
        message: format!("there is no such version of {}", kind.name()),
        suggestion: format!("write {}", kind.api_version()),
        severity: Severity::Error,
    }
}

fn twice(object: ObjectKey, file: &str, first: &str) -> Problem {
    Problem {
        field: "metadata.name".to_owned(),
        value: object.name.to_string(),
        rule: "duplicate",
        message: format!("{object} is written twice, in {first} and in {file}: the first is looked at"),
        suggestion: "leave one of them out".to_owned(),
        severity: Severity::Error,
        object,
    }
}

impl Report {
    fn has_error(&self) -> bool {
        self.count(Severity::Error) > 0
    }

    fn count(&self, severity: Severity) -> usize {
        self.entries.values().flat_map(|entry| &entry.problems).filter(|p| p.severity == severity).count()
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for entry in self.entries.values() {
            for problem in &entry.problems {
                text += &format!("{}: {}: {problem} [{}]\n", entry.file, problem.severity, problem.rule);
            }
        }
        let plural = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        let (errors, warnings) = (self.count(Severity::Error), self.count(Severity::Warning));
        let objects = plural(self.entries.len(), "object");
        text + &format!("{objects}: {}, {}\n", plural(errors, "error"), plural(warnings, "warning"))
    }

    fn json(&self) -> Value {
        let problem = |p: &Problem| {
            json!({
                "rule": p.rule, "field": p.field, "value": p.value, "message": p.message,
                "suggestion": p.suggestion, "severity": p.severity.to_string(),
            })
        };
        let objects = self.entries.iter().map(|((key, _), entry)| {
            json!({
                "kind": key.kind, "namespace": entry.namespace, "name": &*key.name, "file": entry.file,
                "valid": !entry.problems.iter().any(|p| p.severity == Severity::Error),
                "problems": entry.problems.iter().map(problem).collect::<Vec<_>>(),
            })
        });
        json!({ "version": REPORT_VERSION, "configuration": objects.collect::<Vec<_>>() })
    }
}

#[cfg(test)]
mod tests;
