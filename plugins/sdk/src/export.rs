//! Converts between the types of this crate and the generated ones, and exports a method.

use std::marker::PhantomData;

use crate::raw::exports::understudy::method::replica_method as wit;
use crate::raw::understudy::method::types;
use crate::{
    Context, Description, Error, Failure, Kind, Method, Need, NeedKind, OptionSpec, Plan, Request,
    Tablespace, Value,
};

/// Exports `$method`, a type that implements [`Method`], as the method of the component. Must be used once in a crate.
#[macro_export]
macro_rules! export {
    ($method:ty) => {
        #[cfg(target_family = "wasm")]
        const _: () = {
            type Component = $crate::Exported<$method>;
    $crate::raw::export_plugin!(Component with_types_in $crate::raw);
        };
        #[cfg(not(target_family = "wasm"))]
        const _: () = {
            const fn is_a_method<M: $crate::Method>() {}
            is_a_method::<$method>();
        };
    };
}

/// The component of a [`Method`].
#[doc(hidden)]
#[derive(Debug)]
pub struct Exported<M>(PhantomData<M>);

impl<M: Method> wit::Guest for Exported<M> {
    fn describe() -> types::Description {
        M::describe().into()
    }

    fn plan(r: types::Request) -> Result<types::RestorePlan, types::Failure> {
        let request = Request::from(r);
        // Checked in `plan`, before the host empties the data directory.
        if M::NEEDS_PARAMETERS {
            request.datadir()?;
        }
        Ok(M::plan(&request)?.into())
    }

    fn create_replica(r: types::Request, p: types::RestorePlan) -> Result<(), types::Failure> {
        Ok(M::create(&r.into(), &p.into())?)
    }
}

impl From<types::Request> for Request {
    fn from(request: types::Request) -> Self {
        let types::Request { context, options, keep_data } = request;
        let context = context.map(|types::Context { scope, role, datadir, connstring }| Context {
            scope,
            role,
            datadir,
            connstring,
        });
        let options = options.into_iter().map(|setting| (setting.name, setting.value.into())).collect();
        Self::new(context, keep_data, options)
    }
}

impl From<types::Value> for Value {
    fn from(value: types::Value) -> Self {
        match value {
            types::Value::Text(text) => Self::Text(text),
            types::Value::Integer(number) => Self::Integer(number),
            types::Value::Number(number) => Self::Number(number),
            types::Value::Flag(flag) => Self::Flag(flag),
            types::Value::Texts(texts) => Self::Texts(texts),
        }
    }
}

impl From<Value> for types::Value {
    fn from(value: Value) -> Self {
        match value {
            Value::Text(text) => Self::Text(text),
            Value::Integer(number) => Self::Integer(number),
            Value::Number(number) => Self::Number(number),
            Value::Flag(flag) => Self::Flag(flag),
            Value::Texts(texts) => Self::Texts(texts),
        }
    }
}

impl From<Description> for types::Description {
    fn from(description: Description) -> Self {
        let Description { name, version, summary, options, needs } = description;
        Self {
            name,
            version,
            summary,
            options: options.into_iter().map(Into::into).collect(),
            needs: needs.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<OptionSpec> for types::OptionSpec {
    fn from(option: OptionSpec) -> Self {
        let OptionSpec { name, kind, required, default, doc } = option;
        Self { name, kind: kind.into(), required, default: default.map(Into::into), doc }
    }
}

impl From<Kind> for types::Kind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Text => Self::Text,
            Kind::Choice(choices) => Self::Choice(choices),
            Kind::Integer => Self::Integer,
            Kind::Number => Self::Number,
            Kind::Flag => Self::Flag,
            Kind::Texts => Self::Texts,
            Kind::Size => Self::Size,
            Kind::Duration => Self::Duration,
            Kind::Secret => Self::Secret,
        }
    }
}

impl From<Need> for types::Need {
    fn from(need: Need) -> Self {
        let Need { kind, name, required, reason } = need;
        let kind = match kind {
            NeedKind::Store => types::NeedKind::Store,
            NeedKind::Key => types::NeedKind::Key,
            NeedKind::Directory => types::NeedKind::Directory,
            NeedKind::Network => types::NeedKind::Network,
            NeedKind::Program => types::NeedKind::Program,
            NeedKind::Environment => types::NeedKind::Environment,
        };
        Self { kind, name, required, reason }
    }
}

impl From<Plan> for types::RestorePlan {
    fn from(plan: Plan) -> Self {
        Self {
            backup: plan.backup,
            postgresql_major: plan.postgresql_major,
            system_identifier: plan.system_identifier,
            timeline: plan.timeline,
            start_lsn: plan.start_lsn,
            stop_lsn: plan.stop_lsn,
            bytes: plan.bytes,
            files: plan.files,
            tablespaces: plan
                .tablespaces
                .into_iter()
                .map(|Tablespace { oid, name, location }| types::Tablespace { oid, name, location })
                .collect(),
            builds_on_existing: plan.builds_on_existing,
        }
    }
}

impl From<types::RestorePlan> for Plan {
    fn from(plan: types::RestorePlan) -> Self {
        Self {
            backup: plan.backup,
            postgresql_major: plan.postgresql_major,
            system_identifier: plan.system_identifier,
            timeline: plan.timeline,
            start_lsn: plan.start_lsn,
            stop_lsn: plan.stop_lsn,
            bytes: plan.bytes,
            files: plan.files,
            tablespaces: plan
                .tablespaces
                .into_iter()
                .map(|types::Tablespace { oid, name, location }| Tablespace { oid, name, location })
                .collect(),
            builds_on_existing: plan.builds_on_existing,
        }
    }
}

impl From<Failure> for types::Failure {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NotApplicable(why) => Self::NotApplicable(why),
            Failure::RetryLater(why) => Self::RetryLater(why),
            Failure::Failed(why) => Self::Failed(why),
            Failure::Cancelled => Self::Cancelled,
        }
    }
}

impl From<types::Error> for Error {
    fn from(error: types::Error) -> Self {
        match error {
            types::Error::Denied(what) => Self::Denied(what),
            types::Error::NotFound(what) => Self::NotFound(what),
            types::Error::Invalid(what) => Self::Invalid(what),
            types::Error::Transient(what) => Self::Transient(what),
            types::Error::Corrupt(what) => Self::Corrupt(what),
            types::Error::Limit(what) => Self::Limit(what),
            types::Error::Failed(what) => Self::Failed(what),
            types::Error::Cancelled => Self::Cancelled,
        }
    }
}
