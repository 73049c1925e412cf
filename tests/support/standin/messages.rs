//! The server's messages, field for field as captured from a real one.

use serde_json::{Value, json};

use super::sessions::Participant;
use crate::support::tokens;

pub(super) fn license() -> Value {
    json!({"type": "license", "license": {
        "type": 3, "light": false, "mode": 0, "rights": 1,
        "buildVersion": "9.3.0", "buildNumber": 138,
        "protectionSupport": true, "isAnonymousSupport": true, "liveViewerSupport": true,
        "branding": false, "customization": false, "advancedApi": false,
    }})
}

pub(super) fn disconnect_reason(code: u16, description: &str) -> Value {
    json!({"type": "disconnectReason", "code": code, "description": description})
}

pub(super) fn wait_auth(holder: &Participant) -> Value {
    json!({"type": "waitAuth", "lockDocument": holder.json()})
}

pub(super) fn connect_state(participants: &[Participant]) -> Value {
    let participants: Vec<Value> = participants.iter().map(Participant::json).collect();
    json!({
        "type": "connectState", "participantsTimestamp": tokens::now() * 1000,
        "participants": participants, "waitAuth": false,
    })
}

pub(super) fn auth_reply(
    own: &Participant,
    all: &[Participant],
    permissions: &Value,
    secret: &str,
) -> Value {
    let now = tokens::now();
    let connected = now * 1000;
    let session_token = tokens::sign(
        secret,
        &json!({
            "document": {"key": own.document, "permissions": permissions},
            "editorConfig": {
                "user": {"id": own.user, "name": own.name, "index": own.index},
                "ds_isCloseCoAuthoring": false, "ds_sessionTimeConnect": connected,
            },
            "iat": now, "exp": now + 30 * 86_400,
        }),
    );
    let participants: Vec<Value> = all.iter().map(Participant::json).collect();
    let mut reply = json!({
        "type": "auth", "result": 1, "sessionId": own.connection, "sessionTimeConnect": connected,
        "participants": participants, "locks": {}, "indexUser": own.index, "hasForgotten": false,
        "jwt": session_token, "g_cAscSpellCheckUrl": "", "buildVersion": "9.3.0",
        "buildNumber": 138, "licenseType": 3,
        "settings": {
            "spellcheckerUrl": "", "reconnection": {"attempts": 50, "delay": 2000},
            "binaryChanges": false, "websocketMaxPayloadSize": 1_572_864,
            "maxChangesSize": 157_286_400, "limits_image_size": 26_214_400,
            "limits_image_types_upload": "jpg;jpeg;jpe;png;gif;bmp;svg;tiff;tif;webp;heic;heif;avif",
        },
        "openedAt": connected,
    });
    if all.len() > 1
        && let Some(fields) = reply.as_object_mut()
    {
        fields.shift_remove("hasForgotten"); // only the first one is told
    }
    reply
}
