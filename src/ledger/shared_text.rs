//! Text that is shared, in what is passed between processes.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serializer};

/// # Errors
/// The serializer's.
pub fn serialize<S: Serializer>(text: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}

/// # Errors
/// There is no text.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<str>, D::Error> {
    String::deserialize(deserializer).map(Into::into)
}
