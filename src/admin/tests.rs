//! The OpenAPI document and the code say the same.

#[path = "../../tests/support/schema.rs"]
mod schema;

use std::collections::BTreeSet;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::api;
use super::routes::{OPENAPI, routes};
use schema::fits;

fn document() -> Value {
    serde_json::from_str(OPENAPI).unwrap()
}

#[test]
fn every_route_is_described_and_the_reverse() {
    let ours: BTreeSet<(String, String)> = routes()
        .iter()
        .map(|(method, path, _)| (method.as_str().to_lowercase(), (*path).to_owned()))
        .collect();
    assert_eq!(ours.len(), routes().len(), "a route is there twice");
    let document = document();
    let described: BTreeSet<(String, String)> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, methods)| {
            methods.as_object().unwrap().keys().map(move |method| (method.clone(), path.clone()))
        })
        .collect();
    assert_eq!(ours, described);
}

/// Reads an example as the type of its schema and writes it again.
fn again<T: DeserializeOwned + Serialize>(example: &Value) -> Value {
    let read: T = serde_json::from_value(example.clone()).unwrap_or_else(|error| {
        panic!("{error}: {example}");
    });
    serde_json::to_value(read).unwrap()
}

fn by_code(schema: &str, example: &Value) -> Value {
    match schema {
        "Problem" => again::<api::Problem>(example),
        "LicencePage" => again::<api::LicencePage>(example),
        "Licence" => again::<api::Licence>(example),
        "Issued" => again::<api::Issued>(example),
        "Changed" => again::<api::Changed>(example),
        "Applied" => again::<api::Applied>(example),
        "DevicePage" => again::<api::DevicePage>(example),
        "UserPage" => again::<api::UserPage>(example),
        "Released" => again::<api::Released>(example),
        "Removed" => again::<api::Removed>(example),
        "AppPage" => again::<api::AppPage>(example),
        "App" => again::<api::App>(example),
        "AppKey" => again::<api::AppKey>(example),
        "SeatPage" => again::<api::SeatPage>(example),
        "Status" => again::<api::Status>(example),
        "Reloaded" => again::<api::Reloaded>(example),
        "Upgraded" => again::<api::Upgraded>(example),
        "AuditPage" => again::<api::AuditPage>(example),
        "UsagePage" => again::<api::UsagePage>(example),
        "UserUsagePage" => again::<api::UserUsagePage>(example),
        "Backup" => again::<api::Backup>(example),
        other => panic!("no type for the schema {other}"),
    }
}

/// All pairs of a schema's name and an example of it.
fn examples(document: &Value, found: &mut Vec<(String, Value)>) {
    match document {
        Value::Object(map) => {
            if let (Some(example), Some(name)) =
                (map.get("example"), document["schema"]["$ref"].as_str())
            {
                let name = name.rsplit('/').next().unwrap().to_owned();
                found.push((name, example.clone()));
            }
            map.values().for_each(|value| examples(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| examples(value, found)),
        _ => {}
    }
}

#[test]
fn examples_are_what_the_code_writes_and_what_the_schemas_say() {
    let document = document();
    let mut found = Vec::new();
    examples(&document, &mut found);
    assert!(found.len() > 20);
    for (schema, example) in found {
        assert_eq!(by_code(&schema, &example), example, "{schema}");
        let reference = json!({ "$ref": format!("#/components/schemas/{schema}") });
        fits(&document, &reference, &example).unwrap_or_else(|why| panic!("{schema}: {why}"));
    }
}

/// What the API takes: every property of a body's schema is one that the code knows.
#[test]
fn bodies_have_the_properties_that_the_code_reads() {
    fn known<T: DeserializeOwned>(document: &Value, schema: &str) {
        let schema = &document["components"]["schemas"][schema];
        for (name, property) in schema["properties"].as_object().unwrap() {
            let kind = property["type"].as_str().or_else(|| property["type"][0].as_str()).unwrap();
            let value = match (kind, property["format"].as_str()) {
                ("string", Some("date-time")) => json!("2026-11-22T00:00:00Z"),
                ("string", _) => json!("x"),
                ("boolean", _) => json!(true),
                ("integer", _) => json!(1),
                ("array", _) => json!([]),
                other => panic!("{other:?}"),
            };
            let body = json!({ name.as_str(): value });
            if let Err(error) = serde_json::from_value::<T>(body) {
                panic!("{name}: {error}");
            }
        }
        assert!(serde_json::from_value::<T>(json!({ "no_such_field": 1 })).is_err());
    }
    let document = document();
    known::<api::Issue>(&document, "Issue");
    known::<api::Patch>(&document, "Patch");
    known::<api::Renew>(&document, "Renew");
    known::<api::Revoke>(&document, "Revoke");
    known::<api::Find>(&document, "Find");
    known::<api::AddApp>(&document, "AddApp");
    known::<api::Rotate>(&document, "Rotate");
    known::<api::Backup>(&document, "Backup");
}
