//! What takes a seat: the class of a session and the kinds of seat.

use serde::{Deserialize, Serialize};

use crate::licence::Metering;

/// The class of a session, decided when its `auth` message arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SessionClass {
    Editor,
    LiveViewer,
    /// A plain viewer: takes no seat and is never refused for lack of one.
    Viewer,
}

impl SessionClass {
    pub const ALL: [SessionClass; 3] = [Self::Editor, Self::LiveViewer, Self::Viewer];

    /// The `class` label of the metrics and logs.
    pub fn label(self) -> &'static str {
        match self {
            Self::Editor => "editor",
            Self::LiveViewer => "live_viewer",
            Self::Viewer => "viewer",
        }
    }
}

impl SessionClass {
    /// The class of seat that a session of this class takes, if it takes one.
    pub fn seat_class(self) -> Option<SeatClass> {
        match self {
            Self::Editor => Some(SeatClass::Editor),
            Self::LiveViewer => Some(SeatClass::LiveViewer),
            Self::Viewer => None,
        }
    }
}

/// The classes that take a seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SeatClass {
    Editor,
    LiveViewer,
}

impl SeatClass {
    pub fn session_class(self) -> SessionClass {
        match self {
            Self::Editor => SessionClass::Editor,
            Self::LiveViewer => SessionClass::LiveViewer,
        }
    }
}

/// The four kinds of seat that are counted and shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SeatKind {
    EditorConnections,
    ViewerConnections,
    EditorUsers,
    ViewerUsers,
}

impl SeatKind {
    pub const ALL: [SeatKind; 4] =
        [Self::EditorConnections, Self::ViewerConnections, Self::EditorUsers, Self::ViewerUsers];

    /// The kind that a seat of `class` takes under a licence that meters by `metering`.
    pub fn of(class: SeatClass, metering: Metering) -> Self {
        match (class, metering) {
            (SeatClass::Editor, Metering::Connections) => Self::EditorConnections,
            (SeatClass::LiveViewer, Metering::Connections) => Self::ViewerConnections,
            (SeatClass::Editor, Metering::Users) => Self::EditorUsers,
            (SeatClass::LiveViewer, Metering::Users) => Self::ViewerUsers,
        }
    }

    /// The `kind` label of the metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::EditorConnections => "editor_connections",
            Self::ViewerConnections => "viewer_connections",
            Self::EditorUsers => "editor_users",
            Self::ViewerUsers => "viewer_users",
        }
    }
}
