//! A control plane for tests: etcd and kube-apiserver with RBAC, and a client of each identity that a test needs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::PostParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};

use crate::process::{Process, free_port, run, run_with_input, sh};
use crate::wait::eventually;

/// How long etcd and the API server may take to be ready, s: 5 on an idle machine.
const READY_TIME_MAX_S: u64 = 90;
/// The token of the administrator of a test's cluster.
const ADMIN_TOKEN: &str = "admin-of-a-test";
/// Lifetime of a ServiceAccount's token, s: longer than any test.
const TOKEN_LIFETIME_S: i64 = 7_200;
/// Cluster addresses of Services, both families; kube-proxy drops what goes to any other address of these ranges, so the
/// lab has none in them.
const SERVICE_RANGES: &str = "10.96.0.0/16,fd96::/108";

/// Notes what ServiceAccounts do: the product's rights and its silence at rest are judged by it.
const AUDIT_POLICY: &str = r#"{
  "apiVersion": "audit.k8s.io/v1", "kind": "Policy",
  "omitStages": ["RequestReceived", "Panic"],
  "rules": [{"level": "Metadata", "userGroups": ["system:serviceaccounts"]}, {"level": "None"}]
}"#;

/// The API server's own certificate, which its clients trust.
const CERTIFICATE_REQUEST: &str = "[req]
distinguished_name = name
x509_extensions = extensions
prompt = no
[name]
CN = kube-apiserver
[extensions]
basicConstraints = critical,CA:FALSE
subjectAltName = IP:ADDRESS,IP:127.0.0.1
";

/// The Kubernetes programs: those of `$KUBEBUILDER_ASSETS`, else the one binary of `tests/kubernetes`.
#[derive(Clone, Debug)]
enum Programs {
    Assets(PathBuf),
    OneBinary(PathBuf),
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A path below the repository's top.
#[must_use]
pub fn in_repository(path: &str) -> PathBuf {
    repository().join(path)
}

fn one_binary() -> Result<PathBuf> {
    static BUILT: OnceLock<std::result::Result<PathBuf, String>> = OnceLock::new();
    BUILT
        .get_or_init(|| {
            let printed = run(&mut Command::new(in_repository("tests/kubernetes/build")));
            printed.map(|path| PathBuf::from(path.trim())).map_err(|error| format!("{error:#}"))
        })
        .clone()
        .map_err(|error| anyhow!(error))
}

impl Programs {
    fn find() -> Result<Self> {
        match std::env::var_os("KUBEBUILDER_ASSETS").filter(|path| !path.is_empty()) {
            Some(assets) => Ok(Self::Assets(assets.into())),
            None => one_binary().map(Self::OneBinary),
        }
    }

    /// Program and leading arguments of `etcd`, `apiserver` or `kubectl`.
    fn program(&self, name: &str) -> (PathBuf, Vec<String>) {
        match self {
            Self::OneBinary(binary) => (binary.clone(), vec![name.to_owned()]),
            Self::Assets(folder) if name == "apiserver" => (folder.join("kube-apiserver"), vec![]),
            Self::Assets(folder) => (folder.join(name), vec![]),
        }
    }

    fn command(&self, name: &str) -> Command {
        let (program, leading) = self.program(name);
        let mut command = Command::new(program);
        command.args(leading);
        command
    }
}

/// The kube-proxy program with its leading arguments: envtest's assets have none, so those come from the one binary.
///
/// # Errors
/// When there is neither.
pub fn kube_proxy() -> Result<(PathBuf, Vec<String>)> {
    let assets = std::env::var_os("KUBEBUILDER_ASSETS").map(|folder| PathBuf::from(folder).join("kube-proxy"));
    match assets.filter(|program| program.exists()) {
        Some(program) => Ok((program, vec![])),
        None => Ok((one_binary()?, vec!["proxy".to_owned()])),
    }
}

/// etcd and kube-apiserver; the API server can be stopped and started again over the same data.
pub struct ControlPlane {
    programs: Programs,
    dir: PathBuf,
    address: String,
    port: u16,
    etcd_port: u16,
    etcd: Process,
    api: Option<Process>,
    admin: Client,
}

impl ControlPlane {
    /// Starts both in the current network namespace; clients are told to use `address`.
    ///
    /// # Errors
    /// When they are not ready in time: with the tails of their logs.
    pub async fn start(dir: &Path, address: &str) -> Result<Self> {
        let programs = Programs::find()?;
        let dir = dir.join("kubernetes");
        fs::create_dir_all(&dir)?;
        let dir = dir.canonicalize()?;
        let (port, etcd_port, peer_port) = (free_port()?, free_port()?, free_port()?);
        write_secrets(&dir, address)?;
        let etcd = start_etcd(&programs, &dir, etcd_port, peer_port)?;
        let kubeconfig = dir.join("admin.kubeconfig");
        fs::write(&kubeconfig, kubeconfig_text(&dir, address, port, ADMIN_TOKEN))?;
        let admin = client_of(&kubeconfig).await?;
        let mut plane = Self { programs, dir, address: address.to_owned(), port, etcd_port, etcd, api: None, admin };
        plane.start_api().await?;
        Ok(plane)
    }

    /// A client with all rights.
    #[must_use]
    pub fn admin(&self) -> Client {
        self.admin.clone()
    }

    /// The kubeconfig with all rights.
    #[must_use]
    pub fn admin_kubeconfig(&self) -> PathBuf {
        self.dir.join("admin.kubeconfig")
    }

    /// Starts the API server again and waits until it is ready.
    ///
    /// # Errors
    /// When it is not ready in time.
    pub async fn start_api(&mut self) -> Result<()> {
        let mut command = self.programs.command("apiserver");
        command.args([
            format!("--etcd-servers=http://127.0.0.1:{}", self.etcd_port),
            format!("--advertise-address={}", self.address),
            format!("--secure-port={}", self.port),
            format!("--tls-cert-file={}", self.dir.join("tls.crt").display()),
            format!("--tls-private-key-file={}", self.dir.join("tls.key").display()),
            format!("--service-account-key-file={}", self.dir.join("sa.pub").display()),
            format!("--service-account-signing-key-file={}", self.dir.join("sa.key").display()),
            format!("--token-auth-file={}", self.dir.join("tokens.csv").display()),
            format!("--service-cluster-ip-range={SERVICE_RANGES}"),
            format!("--audit-policy-file={}", self.dir.join("audit-policy.json").display()),
            format!("--audit-log-path={}", self.audit_log().display()),
            "--audit-log-mode=blocking".to_owned(),
        ]);
        command.args([
            "--bind-address=0.0.0.0",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--api-audiences=https://kubernetes.default.svc",
            "--authorization-mode=RBAC",
            "--disable-admission-plugins=ServiceAccount",
            "--allow-privileged=true",
            "--v=0",
        ]);
        let mut api = Process::start("kube-apiserver", &self.dir, &mut command)?;
        let authority = self.dir.join("tls.crt");
        let (etcd, url) = (&mut self.etcd, format!("https://{}:{}/readyz", self.address, self.port));
        let ready = eventually("the API server is ready", Duration::from_secs(READY_TIME_MAX_S), async || {
            etcd.ensure_running()?;
            api.ensure_running()?;
            let authority = authority.display().to_string();
            let bearer = format!("Authorization: Bearer {ADMIN_TOKEN}");
            run(Command::new("curl").args(["-sf", "--max-time", "5", "-H", &bearer, "--cacert", &authority, &url]))
                .map(drop)
        });
        ready.await.with_context(|| api.tail())?;
        self.api = Some(api);
        Ok(())
    }

    /// Stops the API server as an outage would: at once. etcd goes on.
    ///
    /// # Errors
    /// When it does not run.
    pub fn stop_api(&mut self) -> Result<()> {
        self.api.take().context("the API server is not running")?.kill()
    }

    /// Writes a kubeconfig with a token of a ServiceAccount and returns its path.
    ///
    /// # Errors
    /// When the ServiceAccount does not exist.
    pub async fn token_kubeconfig(&self, namespace: &str, account: &str) -> Result<PathBuf> {
        let api: Api<ServiceAccount> = Api::namespaced(self.admin(), namespace);
        let spec = TokenRequestSpec { expiration_seconds: Some(TOKEN_LIFETIME_S), ..TokenRequestSpec::default() };
        let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
        let granted = api.create_token_request(account, &PostParams::default(), &request).await?;
        let token = granted.status.and_then(|status| status.token).context("a TokenRequest without a token")?;
        let path = self.dir.join(format!("{namespace}-{account}.kubeconfig"));
        // Renamed into place: another process of the same account may be reading it.
        let written = path.with_extension("new");
        fs::write(&written, kubeconfig_text(&self.dir, &self.address, self.port, &token))?;
        fs::rename(&written, &path)?;
        Ok(path)
    }

    /// Runs kubectl as administrator.
    ///
    /// # Errors
    /// What kubectl says.
    pub fn kubectl(&self, arguments: &[&str], input: Option<&str>) -> Result<String> {
        let mut command = self.programs.command("kubectl");
        command.arg("--kubeconfig").arg(self.admin_kubeconfig()).args(arguments);
        run_with_input(command.env("HOME", &self.dir), input)
    }

    /// Installs what `deploy/` ships (CRDs, ServiceAccounts, RBAC, workloads that nothing here starts).
    ///
    /// # Errors
    /// What the API server refuses.
    pub fn install_ferrocast(&self) -> Result<()> {
        let base = in_repository("deploy/kustomize/base");
        let arguments = ["apply", "--server-side", "--force-conflicts", "-k"].map(str::to_owned);
        let arguments: Vec<String> = arguments.into_iter().chain([base.display().to_string()]).collect();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        self.kubectl(&arguments, None)?;
        // The Service in front of the webhook leads nowhere from here: whoever tests it says where it is (`use_webhook`).
        self.kubectl(&["delete", WEBHOOK_KIND, WEBHOOK_NAME], None)?;
        // The kinds take a moment to be served after their definition was accepted.
        self.kubectl(&["wait", "--for=condition=Established", "--timeout=30s", "crd", "--all"], None).map(drop)
    }

    /// Installs the webhook's configuration of `deploy/` as it is, but with this URL in the place of its Service.
    ///
    /// # Errors
    /// What kubectl says.
    pub fn use_webhook(&self, url: &str) -> Result<()> {
        let file = in_repository("deploy/kustomize/base/webhook.yaml");
        let text = std::fs::read_to_string(&file)?;
        let configuration = text.split("\n---\n").find(|document| document.contains(WEBHOOK_KIND_NAME));
        let configuration = configuration.context("no webhook configuration in deploy/")?;
        let service = configuration.lines().find(|line| line.contains("service: {")).context("no service")?;
        let indent: String = service.chars().take_while(|c| *c == ' ').collect();
        let configuration = configuration.replace(service, &format!("{indent}url: {url}"));
        let configuration = configuration.replace("failurePolicy: Ignore", "failurePolicy: Fail");
        self.kubectl(&["apply", "--server-side", "--force-conflicts", "-f", "-"], Some(&configuration)).map(drop)
    }

    /// Where every finished request of a ServiceAccount is noted, one JSON object a line.
    #[must_use]
    pub fn audit_log(&self) -> PathBuf {
        self.dir.join("audit.log")
    }

    /// The ends of both logs.
    #[must_use]
    pub fn tails(&self) -> String {
        self.api.as_ref().map_or_else(|| "--- kube-apiserver is stopped\n".to_owned(), Process::tail)
            + &self.etcd.tail()
    }
}

/// The kind of the webhook's configuration, as kubectl and as manifests write it.
const WEBHOOK_KIND: &str = "validatingwebhookconfiguration";
const WEBHOOK_KIND_NAME: &str = "kind: ValidatingWebhookConfiguration";
/// Its name in `deploy/`.
const WEBHOOK_NAME: &str = "ferrocast-webhook";

/// Keys of the ServiceAccounts' tokens, the server's certificate, the administrator's token, and what is audited.
fn write_secrets(dir: &Path, address: &str) -> Result<()> {
    let request = dir.join("certificate.conf");
    fs::write(&request, CERTIFICATE_REQUEST.replace("ADDRESS", address))?;
    let (tls_key, certificate) = (dir.join("tls.key"), dir.join("tls.crt"));
    sh(&format!(
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -config {} -keyout {} -out {}",
        request.display(),
        tls_key.display(),
        certificate.display()
    ))?;
    let (key, public) = (dir.join("sa.key"), dir.join("sa.pub"));
    sh(&format!("openssl genrsa -out {} 2048", key.display()))?;
    sh(&format!("openssl rsa -in {} -pubout -out {}", key.display(), public.display()))?;
    fs::write(dir.join("audit-policy.json"), AUDIT_POLICY)?;
    fs::write(dir.join("tokens.csv"), format!("{ADMIN_TOKEN},admin,admin,\"system:masters\"\n"))?;
    Ok(())
}

fn start_etcd(programs: &Programs, dir: &Path, port: u16, peer_port: u16) -> Result<Process> {
    let (client, peer) = (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{peer_port}"));
    let mut command = programs.command("etcd");
    command.arg("--data-dir").arg(dir.join("etcd"));
    command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
    command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
    command.args(["--initial-cluster", &format!("default={peer}"), "--unsafe-no-fsync", "--log-level=warn"]);
    Process::start("etcd", dir, &mut command)
}

fn kubeconfig_text(dir: &Path, address: &str, port: u16, token: &str) -> String {
    let authority = dir.join("tls.crt");
    let authority = authority.display();
    format!(
        "apiVersion: v1
kind: Config
clusters: [{{name: test, cluster: {{server: \"https://{address}:{port}\", certificate-authority: {authority}}}}}]
users: [{{name: test, user: {{token: {token}}}}}]
contexts: [{{name: test, context: {{cluster: test, user: test}}}}]
current-context: test
"
    )
}

/// A client of the identity that a kubeconfig holds.
///
/// # Errors
/// When the file is no kubeconfig.
pub async fn client_of(kubeconfig: &Path) -> Result<Client> {
    let read = Kubeconfig::read_from(kubeconfig)?;
    let config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}
