//! Connecting: one server, the master that sentinels name, or a cluster.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use redis::aio::{ConnectionLike as _, MultiplexedConnection, SendError};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{MultipleNodeRoutingInfo, RoutingInfo};
use redis::sentinel::{SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, Cmd, ConnectionAddr, IntoConnectionInfo as _,
    Pipeline, ProtocolVersion, PushInfo, RedisConnectionInfo, RedisResult, TlsCertificates,
    TlsMode, Value, from_redis_value,
};

use super::world::Connection;
use crate::config::{Engine as Settings, Topology};

/// How long connecting may take, and an answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Commands of a batch that are under way at one time in a cluster.
const SIDE_BY_SIDE: usize = 64;

/// A connection. Clones are the same one: what is sent side by side shares its round trips.
#[derive(Clone)]
pub(super) enum Link {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

#[async_trait]
impl Connection for Link {
    async fn send(&self, command: &Cmd) -> RedisResult<Value> {
        let answer = match self.clone() {
            Self::One(mut link) => link.req_packed_command(command).await,
            Self::Cluster(mut link) => link.req_packed_command(command).await,
        };
        // What the server refuses comes as a value.
        answer?.extract_error()
    }

    async fn send_all(&self, pipeline: &Pipeline) -> RedisResult<Vec<Value>> {
        match self.clone() {
            Self::One(mut link) => {
                let answers = link.req_packed_commands(pipeline, 0, pipeline.len()).await;
                answers?.into_iter().map(Value::extract_error).collect()
            }
            // One pipeline goes to one server, and these may belong to several. Side by side they
            // share the round trips all the same.
            Self::Cluster(link) => {
                let commands: Vec<Cmd> = pipeline.cmd_iter().cloned().collect();
                let each = commands.into_iter().map(|command| {
                    let mut link = link.clone();
                    async move { link.req_packed_command(&command).await?.extract_error() }
                });
                stream::iter(each).buffered(SIDE_BY_SIDE).try_collect().await
            }
        }
    }

    async fn send_to_each(&self, command: &Cmd) -> RedisResult<Vec<(String, Value)>> {
        let Self::Cluster(mut link) = self.clone() else {
            return Ok(vec![(String::new(), self.send(command).await?)]);
        };
        let all = RoutingInfo::MultiNode((MultipleNodeRoutingInfo::AllMasters, None));
        match link.route_command(command.clone(), all).await?.extract_error()? {
            Value::Map(answers) => answers
                .into_iter()
                .map(|(name, answer)| Ok((from_redis_value(name)?, answer.extract_error()?)))
                .collect(),
            answer => Ok(vec![(String::new(), answer)]),
        }
    }

    /// A cluster finds its masters by itself.
    async fn takes_writes(&self) -> bool {
        match self.clone() {
            Self::Cluster(_) => true,
            Self::One(mut link) => {
                let answered = redis::cmd("ROLE").query_async::<Vec<Value>>(&mut link).await;
                // Who may not ask goes by what the writes say.
                let Ok(role) = answered else { return true };
                !matches!(role.first(), Some(Value::BulkString(role)) if role == b"slave")
            }
        }
    }
}

/// Connects, and makes sure that it is answered.
pub(super) async fn connect(settings: &Settings) -> RedisResult<Link> {
    let link = match &settings.address.topology {
        Topology::Cluster => Link::Cluster(cluster(settings)?.get_async_connection().await?),
        Topology::Single | Topology::Sentinel { .. } => {
            let config = AsyncConnectionConfig::new()
                .set_connection_timeout(Some(CONNECT_TIMEOUT))
                .set_response_timeout(Some(ANSWER_TIMEOUT));
            let client = client(settings, ProtocolVersion::RESP2).await?;
            Link::One(client.get_multiplexed_async_connection_with_config(&config).await?)
        }
    };
    link.send(&redis::cmd("PING")).await?;
    Ok(link)
}

/// A connection for messages; `push` gets them.
pub(super) async fn listener(
    settings: &Settings,
    push: impl Fn(PushInfo) -> Result<(), SendError> + Send + Sync + 'static,
) -> RedisResult<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(Some(ANSWER_TIMEOUT))
        .set_push_sender(push);
    let client = client(settings, ProtocolVersion::RESP3).await?;
    client.get_multiplexed_async_connection_with_config(&config).await
}

/// A client of a server that takes messages: any of a cluster, otherwise the one that is written
/// to.
async fn client(settings: &Settings, protocol: ProtocolVersion) -> RedisResult<Client> {
    let address = &settings.address;
    let Topology::Sentinel { service } = &address.topology else {
        let mut first = addresses(settings);
        let Some(first) = first.next() else {
            return Err(no_address());
        };
        let mut identity =
            RedisConnectionInfo::default().set_db(address.database.into()).set_protocol(protocol);
        if let Some(user) = &address.user {
            identity = identity.set_username(user);
        }
        if let Some(password) = &address.password {
            identity = identity.set_password(password.expose());
        }
        let info = first.into_connection_info()?.set_redis_settings(identity);
        return if address.tls {
            Client::build_with_tls(info, certificates(settings))
        } else {
            Client::open(info)
        };
    };
    let server = SentinelServerType::Master;
    let mut builder = SentinelClientBuilder::new(addresses(settings), service, server)?
        .set_client_to_redis_db(address.database.into())
        .set_client_to_redis_protocol(protocol);
    if let Some(user) = &address.user {
        builder = builder.set_client_to_redis_username(user);
    }
    if let Some(password) = &address.password {
        builder = builder.set_client_to_redis_password(password.expose());
    }
    if let Some(user) = &settings.sentinel_user {
        builder = builder.set_client_to_sentinel_username(user);
    }
    if let Some(password) = &settings.sentinel_password {
        builder = builder.set_client_to_sentinel_password(password.expose());
    }
    if address.tls {
        builder = builder
            .set_client_to_redis_tls_mode(TlsMode::Secure)
            .set_client_to_sentinel_tls_mode(TlsMode::Secure)
            .set_client_to_redis_certificates(certificates(settings))
            .set_client_to_sentinel_certificates(certificates(settings));
    }
    builder.build()?.async_get_client().await
}

fn cluster(settings: &Settings) -> RedisResult<ClusterClient> {
    let address = &settings.address;
    let nodes: RedisResult<Vec<_>> =
        addresses(settings).map(redis::IntoConnectionInfo::into_connection_info).collect();
    let mut builder = ClusterClient::builder(nodes?)
        .connection_timeout(CONNECT_TIMEOUT)
        .response_timeout(ANSWER_TIMEOUT);
    if let Some(user) = &address.user {
        builder = builder.username(user);
    }
    if let Some(password) = &address.password {
        builder = builder.password(password.expose());
    }
    if address.tls {
        builder = builder.tls(TlsMode::Secure).certs(certificates(settings));
    }
    builder.build()
}

fn addresses(settings: &Settings) -> impl Iterator<Item = ConnectionAddr> {
    let tls = settings.address.tls;
    settings.address.hosts.iter().map(move |(host, port)| {
        let (host, port) = (host.clone(), *port);
        if tls {
            ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
        } else {
            ConnectionAddr::Tcp(host, port)
        }
    })
}

fn certificates(settings: &Settings) -> TlsCertificates {
    let client_tls = settings.tls.identity.as_ref().map(|identity| ClientTlsConfig {
        client_cert: identity.certificate.clone().into_bytes(),
        client_key: identity.private_key.expose().to_owned().into_bytes(),
    });
    let root_cert = settings.tls.authority.clone().map(String::into_bytes);
    TlsCertificates { client_tls, root_cert }
}

fn no_address() -> redis::RedisError {
    (redis::ErrorKind::InvalidClientConfig, "the url names no server").into()
}
