//! As much of JSON Schema as this project's OpenAPI documents use.

use serde_json::{Value, json};

/// Whether a value is what a schema of the document says: nothing missing, nothing undescribed.
///
/// # Errors
/// Where it is not, and why.
pub(crate) fn fits(document: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = document.pointer(reference.trim_start_matches('#'));
        return fits(document, target.ok_or(reference)?, value);
    }
    if let Some(choices) = schema["oneOf"].as_array() {
        let tried: Vec<_> = choices.iter().map(|choice| fits(document, choice, value)).collect();
        let fitting = tried.iter().filter(|tried| tried.is_ok()).count();
        return if fitting == 1 { Ok(()) } else { Err(format!("{fitting} fit: {tried:?}")) };
    }
    if let Some(constant) = schema.get("const") {
        return if constant == value { Ok(()) } else { Err(format!("{value} is not {constant}")) };
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let kinds = match &schema["type"] {
        Value::Array(kinds) => kinds.clone(),
        one => vec![one.clone()],
    };
    if !kinds.contains(&json!(kind)) {
        return Err(format!("{value} is not of {kinds:?}"));
    }
    if schema["enum"].as_array().is_some_and(|choices| !choices.contains(value)) {
        return Err(format!("{value} is none of {}", schema["enum"]));
    }
    if schema["format"] == "date-time"
        && value.as_str().is_some_and(|text| text.parse::<jiff::Timestamp>().is_err())
    {
        return Err(format!("{value} is no time"));
    }
    for item in value.as_array().into_iter().flatten() {
        fits(document, &schema["items"], item)?;
    }
    for name in schema["required"].as_array().into_iter().flatten() {
        let name = name.as_str().ok_or("a name that is no text")?;
        value.get(name).ok_or_else(|| format!("{name} is missing"))?;
    }
    for (name, value) in value.as_object().into_iter().flatten() {
        let property = schema["properties"].get(name);
        let property = property.ok_or_else(|| format!("{name} is not described"))?;
        fits(document, property, value).map_err(|why| format!("{name}: {why}"))?;
    }
    Ok(())
}
