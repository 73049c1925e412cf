//! Does what a row says, and tells what was seen.

use serde_json::Value;

use crate::support::editor::Dial;
use crate::support::{Editor, Gateway, Open, Opened, Poller, StandIn, within};

use super::axes::{Alias, Class, Form, Row, Transport};
use super::forms::{self, Written};
use super::oracle::{self, End, Expected};

/// A client that is still there.
pub enum Client {
    Socket(Box<Editor>),
    Poller(Box<Poller>),
}

impl Client {
    pub async fn goodbye(self) {
        match self {
            Self::Socket(editor) => editor.goodbye().await,
            Self::Poller(poller) => drop(poller.post(&["41", "1"]).await),
        }
    }

    async fn send(&mut self, form: Form, written: &Written) {
        match self {
            Self::Socket(editor) => forms::send_to_socket(editor, form, written).await,
            Self::Poller(poller) => forms::post(poller, form, written).await,
        }
    }

    async fn verdict(&mut self) -> Opened {
        match self {
            Self::Socket(editor) => editor.verdict().await,
            Self::Poller(poller) => poller.verdict().await,
        }
    }
}

/// The host of a row's tenant.
pub fn host(number: usize) -> String {
    format!("t{number}.example")
}

fn target(alias: Alias, document: &str, transport: &str) -> String {
    let path = match alias {
        Alias::Plain => format!("/doc/{document}/c/"),
        Alias::Version => format!("/9.3.0-abc123/doc/{document}/c/"),
        Alias::VirtualPath => format!("/docs/doc/{document}/c/"),
        Alias::VirtualPathAndVersion => format!("/docs/9.3.0-abc123/doc/{document}/c/"),
        Alias::DoubledSlash => format!("//doc//{document}/c/"),
        Alias::Encoded => format!("/%64oc/{document}/c/"),
        Alias::DotSegments => format!("/x/../doc/{document}/c/"),
        Alias::Bare => "/doc/".to_owned(),
    };
    format!("{path}?shardkey={document}&EIO=4&transport={transport}")
}

/// Opens what fills the licence before the row's own open.
pub async fn fill(gateway: &Gateway, row: &Row, number: usize) -> Vec<Client> {
    let mut holders = Vec::new();
    if oracle::is_full(row.licence) {
        for class in [Class::Editor, Class::LiveViewer] {
            let open = forms::holder(row, number, class);
            let editor = gateway.dial(open.document()).host(&host(number)).admit(&open).await;
            holders.push(Client::Socket(Box::new(editor)));
        }
    }
    holders
}

/// Connects up to where an `auth` is due.
async fn greet(gateway: &Gateway, row: &Row, number: usize, open: &Open) -> Client {
    let host = host(number);
    match row.transport {
        Transport::WebSocket => {
            let target = target(row.alias, open.document(), "websocket");
            let dial = Dial::new(gateway.addr, open.document()).target(&target).host(&host);
            let mut editor = dial.connect().await;
            editor.greet(open).await;
            Client::Socket(Box::new(editor))
        }
        Transport::Polling | Transport::Upgrade => {
            let target = target(row.alias, open.document(), "polling");
            let mut poller = Poller::connect_to(gateway.addr, &target, Some(&host)).await;
            poller.greet(open).await;
            if row.transport == Transport::Upgrade {
                Client::Socket(Box::new(poller.upgrade().await))
            } else {
                Client::Poller(Box::new(poller))
            }
        }
    }
}

/// Opens the row's document in the row's way and holds what is seen against what must be.
pub async fn open(
    gateway: &Gateway,
    server: &StandIn,
    row: &Row,
    number: usize,
    expected: &Expected,
) -> Client {
    let first = if row.form == Form::ChangedClass { Class::Viewer } else { row.class };
    let opening = forms::open(row, number, first);
    let mut client = within("the greeting", greet(gateway, row, number, &opening)).await;
    for (index, step) in expected.opens.iter().enumerate() {
        let class = if index == 0 { first } else { row.class };
        let open = forms::open(row, number, class);
        let written = forms::write(row.form, &open);
        client.send(row.form, &written).await;
        let opened = within("the verdict", client.verdict()).await;
        let seen = server.auths_of(&forms::document(number));
        let refused = matches!(step.end, End::Refused(_));
        assert_eq!(seen.len(), index + usize::from(!refused), "what the server saw");
        match (step.end, opened) {
            (End::Refused(code), Opened::Refused(refusal)) => {
                assert_eq!((refusal.code, refusal.goodbye), (Some(code), true), "{refusal:?}");
                let by_polling = matches!(client, Client::Poller(_));
                assert!(by_polling || refusal.close, "no close frame: {refusal:?}");
            }
            (End::Admitted, Opened::Admitted(reply)) => {
                assert_eq!(reply["result"], 1);
                assert_eq!(reply["licenseType"], 3, "the reply is as it was");
                assert_eq!(seen[index].raw, written.array, "the message is as it was");
            }
            (End::Changed { mode, license_type }, Opened::Admitted(reply)) => {
                assert_eq!(reply["result"], 1);
                assert_eq!(reply["licenseType"], license_type);
                let mut wanted: Value = serde_json::from_str(&written.array).unwrap();
                if mode {
                    wanted[1]["mode"] = "view".into();
                }
                wanted[1]["coEditingMode"] = "strict".into();
                assert_eq!(seen[index].message, wanted[1], "nothing else is changed");
            }
            (wanted, opened) => panic!("{wanted:?} was due, {opened:?} came"),
        }
    }
    client
}
