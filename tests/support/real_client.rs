//! A Socket.IO client that somebody else wrote (`rust_socketio`): WebSocket only, the editor's
//! path and CONNECT payload.

use std::net::SocketAddr;

use futures_util::FutureExt;
use rust_socketio::asynchronous::{Client, ClientBuilder};
use rust_socketio::{Payload, TransportType};
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::editor::Open;
use super::wait::within;

pub struct RealClient {
    client: Client,
    heard: UnboundedReceiver<Value>,
}

impl RealClient {
    /// Connects; it does not come back by itself when the connection ends.
    pub async fn connect(to: SocketAddr, open: &Open) -> Self {
        let (sender, heard) = unbounded_channel();
        let ended = sender.clone();
        let document = open.document();
        let connecting = ClientBuilder::new(format!("http://{to}/doc/{document}/c/?shardkey=1"))
            .transport_type(TransportType::Websocket)
            .auth(json!({"data": open.message}))
            .reconnect(false)
            .on("message", move |payload, _| {
                let Payload::Text(mut values) = payload else { return async {}.boxed() };
                let _ = sender.send(values.swap_remove(0));
                async {}.boxed()
            })
            .on("close", move |_, _| {
                let _ = ended.send(Value::Null);
                async {}.boxed()
            })
            .connect();
        let client = within("the client connects", connecting).await.expect("a session");
        Self { client, heard }
    }

    /// The next message; null at the end of the session.
    pub async fn hear(&mut self) -> Value {
        within("a message comes", self.heard.recv()).await.unwrap_or_default()
    }

    pub async fn say(&self, message: &Value) {
        self.client.emit("message", message.clone()).await.expect("a message can be sent");
    }
}
