//! The OpenAPI 3.1 document, made of the table of routes.
//!
//! Owns its head and the shapes of bodies; every path, verb and privilege comes from the table.

use super::table::{Access, ROUTES, Route};
use super::{people, routes, things};
use serde_json::{Map, Value, json};
use utoipa::{PartialSchema, ToSchema};

/// The document.
#[must_use]
pub fn document() -> Value {
    let mut paths = Map::new();
    for route in ROUTES {
        let path = route.path.replace("{key}", "{provider}/{uid}");
        let entry = paths.entry(path).or_insert_with(|| json!({}));
        entry[route.method.as_str().to_ascii_lowercase()] = operation(route);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Coffer control plane API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "API of controld, over TLS. Callers are known by a client certificate or by `authorization: Bearer TOKEN`. \
                Every answer that is not 2xx has an ApiError as its body. `coffer-why` says why, for the audit log.",
        },
        "paths": paths,
        "components": {
            "schemas": { "ApiError": schema::<hostd_api::error::ApiError>() },
            "securitySchemes": {
                "certificate": { "type": "mutualTLS" },
                "token": { "type": "http", "scheme": "bearer" },
            },
        },
    })
}

fn operation(route: &Route) -> Value {
    let mut operation = json!({
        "operationId": route.verb,
        "summary": route.summary,
        "tags": [route.verb.split('.').next().unwrap_or_default()],
        "parameters": parameters(route),
        "responses": {
            "200": { "description": "Done", "content": { "application/json": { "schema": {} } } },
            "default": {
                "description": "Not done",
                "content": { "application/json": { "schema": { "$ref": "#/components/schemas/ApiError" } } },
            },
        },
    });
    match route.access {
        Access::Needs(privilege) => operation["x-privilege"] = json!(privilege),
        Access::Host => operation["x-privilege"] = json!("(the calling host)"),
        Access::Anybody => operation["security"] = json!([]),
    }
    if route.two_people {
        operation["responses"]["202"] = json!({ "description": "Somebody else must allow it; repeat it with coffer-approval then" });
    }
    if let Some(body) = body(route.verb) {
        operation["requestBody"] = json!({ "content": { "application/json": { "schema": body } } });
    }
    operation
}

fn parameters(route: &Route) -> Value {
    let mut all = Vec::new();
    let part = |name: &str| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } });
    for name in route.names() {
        match name {
            "key" => all.extend([part("provider"), part("uid")]),
            name => all.push(part(name)),
        }
    }
    let options: &[&str] = match route.verb {
        "audit.export" => &["from"],
        "audit.verify" => &["seq", "hash"],
        verb if verb.ends_with(".list") || verb == "key.users" => &["after", "limit"],
        verb if is_of_inventory(verb) => &["revision"],
        _ => &[],
    };
    all.extend(
        options
            .iter()
            .map(|name| json!({ "name": name, "in": "query", "schema": { "type": "string" } })),
    );
    Value::Array(all)
}

fn is_of_inventory(verb: &str) -> bool {
    let (kind, act) = verb.split_once('.').unwrap_or_default();
    ["cluster", "host", "vm", "disk", "policy", "provider"].contains(&kind)
        && ["put", "remove"].contains(&act)
}

/// The shape of the body of a verb, where it has one.
fn body(verb: &str) -> Option<Value> {
    Some(match verb {
        "cluster.put" => schema::<things::PutCluster>(),
        "vm.put" => schema::<things::PutVm>(),
        "disk.put" => schema::<things::PutDisk>(),
        "policy.put" => schema::<things::PutPolicy>(),
        "provider.put" => schema::<things::PutProvider>(),
        "role.put" => schema::<people::PutRole>(),
        "token.make" => schema::<people::MakeToken>(),
        "binding.put" | "binding.remove" => json!({
            "type": "object",
            "required": ["subject", "name", "role", "scope"],
            "properties": {
                "subject": { "type": "string", "description": "sha256:HEX, uri:NAME or token:ID" },
                "name": { "type": "string" },
                "role": { "type": "string" },
                "scope": { "description": "\"everything\", or {\"cluster\": NAME}" },
            },
        }),
        "host.invite" => schema::<routes::Invite>(),
        "host.join" => schema::<routes::Join>(),
        "host.renew" => schema::<routes::Renew>(),
        "host.publish" => schema::<routes::Publish>(),
        _ => return None,
    })
}

fn schema<T: ToSchema + PartialSchema>() -> Value {
    serde_json::to_value(T::schema()).unwrap_or_default()
}
