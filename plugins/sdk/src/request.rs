//! What a method is asked.

use std::path::Path;

use crate::{Failure, FromValue, Value};

/// What the host asks of a method: Patroni's four parameters and the options of the method's section.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Request {
    /// Patroni's four parameters; none where the operator set `no_params`.
    pub context: Option<Context>,
    /// Whether the data directory still holds what it held (`keep_data`).
    pub keep_data: bool,
    options: Vec<(String, Value)>,
}

/// The four parameters that Patroni gives to a replica method.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// The name of the Patroni cluster.
    pub scope: String,
    /// `replica`.
    pub role: String,
    /// The data directory, absolute.
    pub datadir: String,
    /// How to reach the source, without a password; empty where there is none.
    pub connstring: String,
}

impl Request {
    /// A request as the host makes it. A test makes one with [`Request::default`] and [`Request::with`].
    pub fn new(context: Option<Context>, keep_data: bool, options: Vec<(String, Value)>) -> Self {
        Self { context, keep_data, options }
    }

    /// The same with one more option.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.options.push((name.into(), value.into()));
        self
    }

    /// The same for the data directory `datadir`.
    #[must_use]
    pub fn for_datadir(mut self, datadir: impl Into<String>) -> Self {
        self.context =
            Some(Context { role: "replica".to_owned(), datadir: datadir.into(), ..Context::default() });
        self
    }

    /// The option `name`, none where it has neither a value nor a default.
    ///
    /// # Errors
    /// Where it is of another type, which the host's check of the description rules out.
    pub fn get<T: FromValue>(&self, name: &str) -> Result<Option<T>, Failure> {
        let Some((_, value)) = self.options.iter().find(|(known, _)| known == name) else { return Ok(None) };
        match T::from_value(value) {
            Some(value) => Ok(Some(value)),
            None => Err(Failure::failed(format!("option `{name}` is {}, not {}", value.is_a(), T::WANTS))),
        }
    }

    /// The option `name`, which must be there.
    ///
    /// # Errors
    /// Where it is missing or of another type.
    pub fn require<T: FromValue>(&self, name: &str) -> Result<T, Failure> {
        self.get(name)?
            .ok_or_else(|| Failure::failed(format!("option `{name}` is missing: set it to {}", T::WANTS)))
    }

    /// The flag `name`; false where it is not set.
    ///
    /// # Errors
    /// Where it is no flag.
    pub fn flag(&self, name: &str) -> Result<bool, Failure> {
        Ok(self.get(name)?.unwrap_or(false))
    }

    /// The data directory, absolute. It is also the path under which the method sees it.
    ///
    /// # Errors
    /// Where the operator set `no_params`, so that the method is not told.
    pub fn datadir(&self) -> Result<&Path, Failure> {
        match &self.context {
            Some(context) => Ok(Path::new(&context.datadir)),
            None => {
                Err(Failure::failed("the data directory is not known with `no_params`: remove that setting"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_option_is_read_as_its_type() {
        let request = Request::default()
            .with("directory", "/backups")
            .with("delta", true)
            .with("pause", 1500)
            .with("only", vec!["a".to_owned()]);
        assert_eq!(request.require::<String>("directory"), Ok("/backups".to_owned()));
        assert_eq!(request.flag("delta"), Ok(true));
        assert_eq!(request.flag("absent"), Ok(false));
        assert_eq!(request.get("pause"), Ok(Some(Duration::from_millis(1500))));
        assert_eq!(request.get("only"), Ok(Some(vec!["a".to_owned()])));
        assert_eq!(request.get::<i64>("absent"), Ok(None));
    }

    #[test]
    fn an_option_that_is_missing_or_of_another_type_is_named() {
        let request = Request::default().with("delta", "true").with("size", -1);
        for (answer, name) in [
            (request.require::<String>("directory").map(drop), "directory"),
            (request.flag("delta").map(drop), "delta"),
            (request.get::<u64>("size").map(drop), "size"),
        ] {
            let failure = answer.unwrap_err();
            assert!(failure.to_string().contains(&format!("`{name}`")), "{failure}");
        }
    }

    #[test]
    fn without_parameters_the_data_directory_is_not_known() {
        let failure = Request::default().datadir().unwrap_err();
        assert!(failure.to_string().contains("`no_params`"), "{failure}");
    }
}
