//! A gateway with a TLS listener.

use std::net::SocketAddr;

use crate::support::Setup;
use crate::support::gateway::{Gateway, free_address};
use crate::support::tls::{Authority, Client, Pair};

/// A gateway with a TLS listener, whose certificate is of `house.example`.
pub(crate) struct Secured {
    pub(crate) authority: Authority,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) over_tls: SocketAddr,
    pub(crate) setup: Setup,
}

impl Secured {
    pub(crate) fn before(server: SocketAddr) -> Self {
        let authority = Authority::new();
        let folder = tempfile::tempdir().unwrap();
        let over_tls = free_address();
        let (chain, key) = authority.issue(&["house.example"]).write(folder.path(), "house");
        let setup = Setup::before(server)
            .set("server.tls.listen", vec![over_tls.to_string()])
            .set("server.tls.certificate", chain.display().to_string())
            .set("server.tls.private_key", key.display().to_string());
        Self { authority, folder, over_tls, setup }
    }

    pub(crate) fn set(mut self, path: &str, value: impl Into<toml::Value>) -> Self {
        self.setup = self.setup.set(path, value);
        self
    }

    /// A further certificate.
    pub(crate) fn also(self, name: &str, pair: &Pair) -> Self {
        let (chain, key) = pair.write(self.folder.path(), name);
        let mut table = toml::Table::new();
        table.insert("certificate".to_owned(), chain.display().to_string().into());
        table.insert("private_key".to_owned(), key.display().to_string().into());
        self.set("server.tls.certificates", vec![toml::Value::Table(table)])
    }

    pub(crate) fn client(&self, name: &str) -> Client {
        Client::new(&self.authority, name)
    }

    pub(crate) async fn start(&self) -> Gateway {
        self.setup.clone().start().await
    }
}
