//! What a gateway is started with: its configuration and licences, written to files.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::gateway::{DEFAULT_LICENCE, Gateway};

/// One `[[licence]]`.
#[derive(Clone, Debug)]
pub struct LicenceFile(Table);

impl LicenceFile {
    fn new(id: &str) -> Self {
        let mut table = Table::new();
        table.insert("id".to_owned(), id.into());
        table.insert("issued_to".to_owned(), "A customer".into());
        Self(table)
    }

    /// A licence of so many open connections.
    pub fn connections(id: &str, editors: i64, viewers: i64) -> Self {
        Self::new(id).with("connections", editors).with("connections_view", viewers)
    }

    /// A licence of so many unique users.
    pub fn users(id: &str, editors: i64, viewers: i64) -> Self {
        Self::new(id).with("users_count", editors).with("users_view_count", viewers)
    }

    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.0.insert(key.to_owned(), value.into());
        self
    }

    /// Sets a date: `start` or `end`.
    pub fn at(self, key: &str, date: &str) -> Self {
        let date: toml::value::Datetime = date.parse().expect("a date");
        self.with(key, date)
    }
}

/// What a gateway is started with. Ports and folders are added at the start.
#[derive(Clone, Debug)]
pub struct Setup {
    pub(super) config: Table,
    licences: Vec<LicenceFile>,
    apps: Vec<Table>,
    /// What a shell does before it becomes the gateway.
    pub(super) shell: Option<String>,
}

impl Setup {
    /// A gateway in front of `upstream`, whose default licence has two editor and two live-viewer
    /// connections, with no grace for lost connections and little for a stop.
    pub fn before(upstream: SocketAddr) -> Self {
        let licence = LicenceFile::connections(DEFAULT_LICENCE, 2, 2);
        Self { config: Table::new(), licences: vec![licence], apps: Vec::new(), shell: None }
            .set("document_server.addresses", vec![upstream.to_string()])
            .set("enforcement.reconnect_grace", "0s")
            .set("server.workers", 2)
            .set("server.stop_limit", "200ms")
            .set("licences.default", DEFAULT_LICENCE)
    }

    /// Sets a key by its dotted path.
    pub fn set(mut self, path: &str, value: impl Into<Value>) -> Self {
        set(&mut self.config, path, value.into());
        self
    }

    /// Replaces the default licence.
    pub fn default_licence(mut self, make: impl FnOnce(&str) -> LicenceFile) -> Self {
        self.licences[0] = make(DEFAULT_LICENCE);
        self
    }

    pub fn licence(mut self, licence: LicenceFile) -> Self {
        self.licences.push(licence);
        self
    }

    /// Who may call the validation API.
    pub fn app(mut self, id: &str, api_key: &str) -> Self {
        let mut app = Table::new();
        app.insert("id".to_owned(), id.into());
        app.insert("api_key".to_owned(), api_key.into());
        self.apps.push(app);
        self
    }

    /// Runs commands of a shell in the gateway's process before it starts.
    pub fn shell(mut self, commands: &str) -> Self {
        self.shell = Some(commands.to_owned());
        self
    }

    pub fn tenant(mut self, name: &str, hosts: &[&str], licence: &str) -> Self {
        let mut tenant = Table::new();
        tenant.insert("name".to_owned(), name.into());
        tenant.insert("hosts".to_owned(), hosts.to_vec().into());
        tenant.insert("licence".to_owned(), licence.into());
        let tenants = self.config.entry("tenant").or_insert_with(|| Value::Array(Vec::new()));
        tenants.as_array_mut().expect("tenants are a list").push(Value::Table(tenant));
        self
    }

    /// Sets a key of the tenant that was added last.
    pub fn tenant_key(mut self, key: &str, value: impl Into<Value>) -> Self {
        let tenants = self.config.get_mut("tenant").and_then(Value::as_array_mut);
        let last = tenants.and_then(|tenants| tenants.last_mut()).and_then(Value::as_table_mut);
        last.expect("there is a tenant").insert(key.to_owned(), value.into());
        self
    }

    /// Starts it and waits until it is ready.
    pub async fn start(self) -> Gateway {
        Gateway::start(self).await
    }

    /// Writes the configuration into `folder` and returns its path.
    pub fn write(&self, folder: &Path, listen: SocketAddr, ops: SocketAddr) -> PathBuf {
        let state = folder.join("state");
        fs::create_dir_all(&state).expect("a folder for the state");
        let mut config = self.config.clone();
        for (path, value) in [
            ("server.listen", Value::from(vec![listen.to_string()])),
            ("server.state_directory", state.display().to_string().into()),
            ("ops.listen", ops.to_string().into()),
            ("licences.files", vec!["licences.toml"].into()),
        ] {
            let (section, key) = path.split_once('.').expect("a dotted path");
            let set_already = config.get(section).is_some_and(|table| table.get(key).is_some());
            if !set_already {
                set(&mut config, path, value);
            }
        }
        let licences = self.licences.iter().map(|licence| Value::Table(licence.0.clone()));
        let mut licence_file = Table::new();
        let apps = self.apps.iter().cloned().map(Value::Table).collect();
        licence_file.insert("app".to_owned(), Value::Array(apps));
        licence_file.insert("licence".to_owned(), Value::Array(licences.collect()));
        let write = |name: &str, table: &Table| {
            let path = folder.join(name);
            fs::write(&path, toml::to_string(table).expect("TOML")).expect("a file is written");
            path
        };
        write("licences.toml", &licence_file);
        write("seatgate.toml", &config)
    }
}

fn set(table: &mut Table, path: &str, value: Value) {
    match path.split_once('.') {
        None => {
            table.insert(path.to_owned(), value);
        }
        Some((section, rest)) => {
            let inner = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
            set(inner.as_table_mut().expect("a section"), rest, value);
        }
    }
}
