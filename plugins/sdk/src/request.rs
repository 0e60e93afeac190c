//! The request to a method.

use std::path::Path;

use crate::{Failure, FromValue, Value};

/// The request to a method: Patroni's four parameters and the options of the method's section.
///
/// ```
/// use understudy::Request;
///
/// // What the host makes of `options.directory = "/mnt/backups"`.
/// let request = Request::default().with("directory", "/mnt/backups").for_datadir("/var/lib/postgresql/15/main");
/// let directory: String = request.require("directory")?;
/// assert_eq!(directory, "/mnt/backups");
/// assert_eq!(request.get::<u64>("at_most")?, None);
/// # Ok::<(), understudy::Failure>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Request {
    /// Patroni's four parameters; `None` if the operator set `no_params`.
    pub context: Option<Context>,
    /// Whether the data directory keeps its old content (`keep_data`).
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
    /// The connection string of the source, without a password; empty if there is no source.
    pub connstring: String,
}

impl Request {
    /// Makes a request, as the host does. Tests use [`Request::default`] and [`Request::with`].
    pub fn new(context: Option<Context>, keep_data: bool, options: Vec<(String, Value)>) -> Self {
        Self { context, keep_data, options }
    }

    /// Adds an option.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.options.push((name.into(), value.into()));
        self
    }

    /// Sets the data directory.
    #[must_use]
    pub fn for_datadir(mut self, datadir: impl Into<String>) -> Self {
        self.context =
            Some(Context { role: "replica".to_owned(), datadir: datadir.into(), ..Context::default() });
        self
    }

    /// Returns the option `name`; `None` if the option has neither a value nor a default.
    ///
    /// # Errors
    /// Fails if the option has another type. The host checks options against the description, so this is a bug in the method.
    pub fn get<T: FromValue>(&self, name: &str) -> Result<Option<T>, Failure> {
        let Some((_, value)) = self.options.iter().find(|(known, _)| known == name) else { return Ok(None) };
        match T::from_value(value) {
            Some(value) => Ok(Some(value)),
            None => Err(Failure::failed(format!("option `{name}` is {}, not {}", value.is_a(), T::WANTS))),
        }
    }

    /// Returns the option `name`, which must be set.
    ///
    /// # Errors
    /// Fails if the option is missing or has another type.
    pub fn require<T: FromValue>(&self, name: &str) -> Result<T, Failure> {
        self.get(name)?
            .ok_or_else(|| Failure::failed(format!("option `{name}` is missing: set it to {}", T::WANTS)))
    }

    /// Returns the flag `name`; false if it is not set.
    ///
    /// # Errors
    /// Fails if the option is not a flag.
    pub fn flag(&self, name: &str) -> Result<bool, Failure> {
        Ok(self.get(name)?.unwrap_or(false))
    }

    /// Returns the absolute path of the data directory. The path is the same in the method's file system.
    ///
    /// # Errors
    /// Fails if the operator set `no_params`, because the request then has no data directory.
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
