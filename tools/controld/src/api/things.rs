//! Routes of the inventory: clusters, hosts, VMs, disks, policies, providers, keys.
//!
//! Owns what each of them reads and writes; every decision is the inventory's. A `PUT` without the option `revision` makes a new thing, with it changes
//! the one that was read at that revision.

use super::{Call, Fault};
use crate::inventory::{
    Cluster, Disk, Held, Host, InventoryError, KeyId, Listed, Name, Policy, Provider, Record, Vm,
};
use crate::store::Revision;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;
use uuid::Uuid;

/// Entries of a page when none is said.
const PAGE: usize = 100;

type Done = Result<Value, Fault>;

/// Body of `cluster.put`.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PutCluster {
    /// Provider of new keys.
    #[serde(default)]
    pub(super) provider: Option<String>,
}

/// Body of `vm.put`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PutVm {
    /// Identity in its safe.
    pub(super) id: Uuid,
    /// The host that has it.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub(super) host: Option<Name>,
    /// Its datastore.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub(super) datastore: Option<Name>,
    /// Its policy.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub(super) policy: Option<Name>,
    /// The keys that wrap its home key.
    #[schema(value_type = Vec<String>)]
    pub(super) key_ids: Vec<KeyId>,
}

/// Body of `disk.put`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PutDisk {
    /// Identity in its descriptor.
    pub(super) id: Uuid,
    /// Bytes.
    pub(super) size: u64,
    /// The keys that wrap its key.
    #[schema(value_type = Vec<String>)]
    pub(super) key_ids: Vec<KeyId>,
}

/// Body of `policy.put`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PutPolicy {
    /// Whether its VMs and disks are encrypted.
    pub(super) encrypted: bool,
    /// Provider of the keys; that of the cluster when absent.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub(super) provider: Option<Name>,
    /// A key that all VMs with this policy share.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub(super) key_ids: Vec<KeyId>,
}

/// Body of `provider.put`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PutProvider {
    /// `kmip`, `native` or `openbao`.
    #[schema(value_type = String)]
    pub(super) kind: Name,
}

pub(super) fn clusters(call: &Call<'_>) -> Done {
    list::<Cluster>(call, "")
}

pub(super) fn put_cluster(call: &Call<'_>) -> Done {
    let body: PutCluster = call.body()?;
    let provider = body.provider.map(|name| name.parse()).transpose();
    let provider =
        provider.map_err(|e: crate::inventory::NameError| Fault::invalid(e.to_string()))?;
    let name: Name = call.part(0)?;
    let held = call.service.inventory.get::<Cluster>(name.as_str());
    let made_at = held.map_or(call.now, |held| held.record.made_at);
    put(call, &Cluster { name, provider, made_at })
}

pub(super) fn remove_cluster(call: &Call<'_>) -> Done {
    remove::<Cluster>(call, &call.part::<Name>(0)?.to_string())
}

pub(super) fn hosts(call: &Call<'_>) -> Done {
    list::<Host>(call, "")
}

pub(super) fn remove_host(call: &Call<'_>) -> Done {
    remove::<Host>(call, &call.part::<Name>(0)?.to_string())
}

pub(super) fn vms(call: &Call<'_>) -> Done {
    list::<Vm>(call, &format!("{}/", call.part::<Name>(0)?))
}

pub(super) fn show_vm(call: &Call<'_>) -> Done {
    shown(&vm_of(call)?)
}

pub(super) fn put_vm(call: &Call<'_>) -> Done {
    let body: PutVm = call.body()?;
    let vm = Vm {
        id: body.id,
        cluster: call.part(0)?,
        name: call.part(1)?,
        host: body.host,
        datastore: body.datastore,
        policy: body.policy,
        key_ids: body.key_ids,
    };
    put(call, &vm)
}

pub(super) fn remove_vm(call: &Call<'_>) -> Done {
    remove::<Vm>(call, &vm_of(call)?.record.place())
}

pub(super) fn disks(call: &Call<'_>) -> Done {
    list::<Disk>(call, &format!("{}/", vm_of(call)?.record.id))
}

pub(super) fn put_disk(call: &Call<'_>) -> Done {
    let body: PutDisk = call.body()?;
    let (name, vm) = (call.part(2)?, Some(vm_of(call)?.record.id));
    put(call, &Disk { id: body.id, name, vm, size: body.size, key_ids: body.key_ids })
}

pub(super) fn remove_disk(call: &Call<'_>) -> Done {
    let place = format!("{}/{}", vm_of(call)?.record.id, call.part::<Name>(2)?);
    remove::<Disk>(call, &place)
}

pub(super) fn policies(call: &Call<'_>) -> Done {
    list::<Policy>(call, "")
}

pub(super) fn put_policy(call: &Call<'_>) -> Done {
    let body: PutPolicy = call.body()?;
    let (encrypted, provider, key_ids) = (body.encrypted, body.provider, body.key_ids);
    put(call, &Policy { name: call.part(0)?, encrypted, provider, key_ids })
}

pub(super) fn remove_policy(call: &Call<'_>) -> Done {
    remove::<Policy>(call, &call.part::<Name>(0)?.to_string())
}

pub(super) fn providers(call: &Call<'_>) -> Done {
    list::<Provider>(call, "")
}

pub(super) fn put_provider(call: &Call<'_>) -> Done {
    let body: PutProvider = call.body()?;
    put(call, &Provider { name: call.part(0)?, kind: body.kind })
}

pub(super) fn remove_provider(call: &Call<'_>) -> Done {
    remove::<Provider>(call, &call.part::<Name>(0)?.to_string())
}

pub(super) fn key_users(call: &Call<'_>) -> Done {
    let after = call.option::<String>("after")?;
    let limit = call.option("limit")?.unwrap_or(PAGE);
    let (users, more) = call.service.inventory.users(&call.part(0)?, after.as_deref(), limit)?;
    let last = users.last().filter(|_| more);
    let next = last.map(|user| format!("{}/{}", user.kind, user.place));
    Ok(json!({ "users": users, "next": next }))
}

pub(super) fn key_verdict(call: &Call<'_>) -> Done {
    json_of(&call.service.inventory.verdict(&call.part(0)?)?)
}

pub(super) fn retire_key(call: &Call<'_>) -> Done {
    let id: KeyId = call.part(0)?;
    call.service.inventory.retire(&id)?;
    Ok(json!({ "key_id": id, "state": "retired" }))
}

fn vm_of(call: &Call<'_>) -> Result<Held<Vm>, Fault> {
    let place = format!("{}/{}", call.part::<Name>(0)?, call.part::<Name>(1)?);
    Ok(call.service.inventory.get(&place)?)
}

fn list<R: Record>(call: &Call<'_>, below: &str) -> Done {
    let after = call.option::<String>("after")?;
    let limit = call.option("limit")?.unwrap_or(PAGE);
    let page: Listed<R> = call.service.inventory.list(below, after.as_deref(), limit)?;
    let items: Result<Vec<_>, _> = page.records.iter().map(shown).collect();
    Ok(json!({ "items": items?, "next": page.next }))
}

/// Makes a thing, or changes the one in its place that was read at the revision of the option.
fn put<R: Record>(call: &Call<'_>, record: &R) -> Done {
    let inventory = &call.service.inventory;
    let held = match call.option::<u64>("revision")? {
        None => None,
        Some(revision) => {
            let held: Held<R> = inventory.get(&record.place())?;
            expect(&held, Revision(revision))?;
            Some(held)
        }
    };
    let revision = inventory.put(record, held.as_ref())?;
    Ok(json!({ "revision": revision.0, "record": json_of(record)? }))
}

fn remove<R: Record>(call: &Call<'_>, place: &str) -> Done {
    let inventory = &call.service.inventory;
    let held: Held<R> = inventory.get(place)?;
    if let Some(revision) = call.option::<u64>("revision")? {
        expect(&held, Revision(revision))?;
    }
    inventory.remove(&held)?;
    shown(&held)
}

fn expect<R: Record>(held: &Held<R>, revision: Revision) -> Result<(), Fault> {
    if held.revision == revision {
        return Ok(());
    }
    let what = format!("{} {}", R::KIND, held.record.title());
    Err(InventoryError::Changed { what }.into())
}

fn shown<R: Record>(held: &Held<R>) -> Done {
    Ok(json!({ "revision": held.revision.0, "record": json_of(&held.record)? }))
}

pub(super) fn json_of<T: Serialize>(thing: &T) -> Done {
    serde_json::to_value(thing).map_err(|e| Fault::Bug(e.to_string()))
}
