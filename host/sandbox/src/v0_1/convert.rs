//! Converts between the contract's types and the host's. This module checks nothing. The modules `describe`, `plan` and `guest_failure`
//! check descriptions, plans and the reasons of failures.

use replica::{Bytes, Lsn, Plan, Request, Tablespace};

use super::interfaces::types;
use crate::OptionValue;
use crate::guest_failure::GuestFailure;
use crate::inspection::{Description, Kind, Need, NeedKind, OptionSpec};
use crate::options::Setting;

pub(super) fn description(description: types::Description) -> Description {
    Description {
        name: description.name,
        version: description.version,
        summary: description.summary,
        options: description.options.into_iter().map(option).collect(),
        needs: description.needs.into_iter().map(need).collect(),
    }
}

fn option(option: types::OptionSpec) -> OptionSpec {
    OptionSpec {
        name: option.name,
        kind: kind(option.kind),
        required: option.required,
        default: option.default.map(value),
        doc: option.doc,
    }
}

fn kind(kind: types::Kind) -> Kind {
    match kind {
        types::Kind::Text => Kind::Text,
        types::Kind::Choice(choices) => Kind::Choice(choices),
        types::Kind::Integer => Kind::Integer,
        types::Kind::Number => Kind::Number,
        types::Kind::Flag => Kind::Flag,
        types::Kind::Texts => Kind::Texts,
        types::Kind::Size => Kind::Size,
        types::Kind::Duration => Kind::Duration,
        types::Kind::Secret => Kind::Secret,
    }
}

fn value(value: types::Value) -> OptionValue {
    match value {
        types::Value::Text(text) => OptionValue::Text(text),
        types::Value::Integer(number) => OptionValue::Integer(number),
        types::Value::Number(number) => OptionValue::Number(number),
        types::Value::Flag(flag) => OptionValue::Flag(flag),
        types::Value::Texts(texts) => OptionValue::Texts(texts),
    }
}

fn need(need: types::Need) -> Need {
    let kind = match need.kind {
        types::NeedKind::Store => NeedKind::Store,
        types::NeedKind::Key => NeedKind::Key,
        types::NeedKind::Directory => NeedKind::Directory,
        types::NeedKind::Network => NeedKind::Network,
        types::NeedKind::Program => NeedKind::Program,
        types::NeedKind::Environment => NeedKind::Environment,
    };
    Need { kind, name: need.name, required: need.required, reason: need.reason }
}

pub(super) fn request(request: &Request, settings: &[Setting]) -> types::Request {
    types::Request {
        context: request.context.as_ref().map(|context| types::Context {
            scope: context.scope.clone(),
            role: context.role.clone(),
            datadir: context.datadir.clone(),
            connstring: context.connstring.clone(),
        }),
        options: settings.iter().map(setting).collect(),
        keep_data: request.keep_data,
    }
}

fn setting(setting: &Setting) -> types::Setting {
    let value = match &setting.value {
        // `options::check` leaves no `Untyped` value; the pattern only makes the match complete.
        OptionValue::Text(text) | OptionValue::Untyped(text) => types::Value::Text(text.clone()),
        OptionValue::Integer(number) => types::Value::Integer(*number),
        OptionValue::Number(number) => types::Value::Number(*number),
        OptionValue::Flag(flag) => types::Value::Flag(*flag),
        OptionValue::Texts(texts) => types::Value::Texts(texts.clone()),
    };
    types::Setting { name: setting.name.clone(), value }
}

pub(super) fn plan(plan: types::RestorePlan) -> Plan {
    let tablespace = |tablespace: types::Tablespace| Tablespace {
        oid: tablespace.oid,
        name: tablespace.name,
        location: tablespace.location.into(),
    };
    Plan {
        backup: plan.backup,
        postgresql_major: plan.postgresql_major,
        system_identifier: plan.system_identifier,
        timeline: plan.timeline,
        start_lsn: plan.start_lsn.map(Lsn),
        stop_lsn: plan.stop_lsn.map(Lsn),
        bytes: plan.bytes.map(Bytes),
        files: plan.files,
        tablespaces: plan.tablespaces.into_iter().map(tablespace).collect(),
        builds_on_existing: plan.builds_on_existing,
    }
}

pub(super) fn restore_plan(plan: &Plan) -> types::RestorePlan {
    let tablespace = |tablespace: &Tablespace| types::Tablespace {
        oid: tablespace.oid,
        name: tablespace.name.clone(),
        location: tablespace.location.to_string_lossy().into_owned(),
    };
    types::RestorePlan {
        backup: plan.backup.clone(),
        postgresql_major: plan.postgresql_major,
        system_identifier: plan.system_identifier,
        timeline: plan.timeline,
        start_lsn: plan.start_lsn.map(|lsn| lsn.0),
        stop_lsn: plan.stop_lsn.map(|lsn| lsn.0),
        bytes: plan.bytes.map(|bytes| bytes.0),
        files: plan.files,
        tablespaces: plan.tablespaces.iter().map(tablespace).collect(),
        builds_on_existing: plan.builds_on_existing,
    }
}

pub(super) fn guest_failure(failure: types::Failure) -> GuestFailure {
    match failure {
        types::Failure::NotApplicable(text) => GuestFailure::NotApplicable(text),
        types::Failure::RetryLater(text) => GuestFailure::RetryLater(text),
        types::Failure::Failed(text) => GuestFailure::Failed(text),
        types::Failure::Cancelled => GuestFailure::Cancelled,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn create_replica_gets_the_plan_that_plan_returned() {
        let given = Plan {
            backup: "b".to_owned(),
            postgresql_major: Some(15),
            system_identifier: Some(7),
            timeline: Some(2),
            start_lsn: Some(Lsn(3)),
            stop_lsn: Some(Lsn(4)),
            bytes: Some(Bytes(5)),
            files: Some(6),
            tablespaces: vec![Tablespace {
                oid: 16384,
                name: Some("fast".to_owned()),
                location: "/ts".into(),
            }],
            builds_on_existing: true,
        };
        assert_eq!(plan(restore_plan(&given)), given);
    }
}
