//! The settings of Understudy's configuration, before they are rendered as text.

use foundation::printable::is_printable;

use crate::basebackup::Basebackup;
use crate::methods::{BASEBACKUP, Listed, Method, Methods, list, note_unlisted};
use crate::remarks::Remarks;
use crate::settings::{Setting, Settings};
use crate::source::{Login, Remote};
use crate::{Unreadable, python};

/// All settings that are carried over.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The local file's name.
    pub(crate) file: String,
    /// The member's name.
    pub(crate) member: Option<String>,
    pub(crate) scope: Option<Carried>,
    pub(crate) datadir: Option<Carried>,
    pub(crate) bin_dir: Option<Carried>,
    /// The server's configuration file, which Patroni writes after the first run.
    pub(crate) config_file: Option<Carried>,
    pub(crate) trigger_file: Option<Carried>,
    pub(crate) methods: Vec<String>,
    /// The place of the list of methods; `None` if Patroni has no list.
    pub(crate) methods_at: Option<String>,
    pub(crate) programs: Vec<Method>,
    /// Whether Patroni already runs Understudy even without a source.
    pub(crate) is_understudy_without_leader: bool,
    pub(crate) basebackup: Basebackup,
    pub(crate) login: Login,
    /// The server that a standby cluster follows.
    pub(crate) remote: Option<Remote>,
    /// The methods for copying from that server; `None` if they are the same as `methods`.
    pub(crate) remote_methods: Option<Vec<String>>,
    /// Whether this is a standby cluster, whose list of methods is in the dynamic configuration.
    pub(crate) is_standby_cluster: bool,
    /// Keys that Patroni no longer needs, each with its place.
    pub(crate) superseded: Vec<(String, String)>,
    /// The section `basebackup` with its place. Patroni needs this section for `patronictl reinit --from-leader`.
    pub(crate) kept: Option<(String, String)>,
}

/// A value, and its place in Patroni's configuration.
#[derive(Debug)]
pub(crate) struct Carried {
    pub(crate) value: String,
    pub(crate) at: String,
}

impl Plan {
    /// Makes the plan.
    ///
    /// # Errors
    /// Fails if a setting is a template.
    pub(crate) fn of(settings: &Settings<'_>, remarks: &mut Remarks) -> Result<Self, Unreadable> {
        let local = settings.local_postgresql();
        let scope = name(settings.top("scope"), remarks)?;
        if scope.is_none() {
            let reason = "there is no `scope` that can be carried over: write scope = \"NAME\" with the name of the \
                 cluster at the top";
            remarks.not_carried(local, reason);
        }
        let member = name(settings.top("name").or_else(|| settings.postgresql("name")), remarks)?;
        let datadir = path(settings.postgresql("data_dir"), remarks)?;
        if datadir.is_none() {
            remarks.not_carried(
                local,
                "there is no absolute `data_dir`: write datadir = \"/path\" below [replica]",
            );
        }
        let bin_dir = path(settings.postgresql("bin_dir").filter(Setting::is_true), remarks)?;
        if bin_dir.is_none() {
            let reason = "there is no `bin_dir`, so Patroni looks for PostgreSQL's programs in PATH: write their \
                          directory below [replica], such as bin_dir = \"/usr/lib/postgresql/15/bin\"";
            remarks.not_carried(local, reason);
        }
        let config_file = config_file(settings, datadir.as_ref(), remarks)?;
        let trigger_file = trigger_file(settings, datadir.as_ref(), remarks);
        stays_with_patroni(settings, datadir.as_ref(), remarks);

        let setting = listed_in(settings, remarks);
        let listed = setting.iter().flat_map(|setting| list(setting, remarks)).collect::<Vec<_>>();
        let standby = settings.standby_cluster();
        let standby_list = standby
            .as_ref()
            .and_then(|standby| standby.get("create_replica_methods"))
            .filter(Setting::is_true);
        let standby_listed: Vec<_> = standby_list.iter().flat_map(|setting| list(setting, remarks)).collect();

        let mut methods = Methods::default();
        let local_names = or_basebackup(methods.take(&listed, settings, remarks)?, &listed);
        let standby_names = or_basebackup(methods.take(&standby_listed, settings, remarks)?, &standby_listed);
        note_unlisted(settings, &[&listed, &standby_listed], remarks);
        for (names, list) in [(&local_names, &setting), (&standby_names, &standby_list)] {
            if let Some(list) = list.as_ref().filter(|_| names.is_empty()) {
                let reason = "no method of this list is carried over, and without `methods` Understudy uses `basebackup`: write the names of \
                              the methods in `methods`";
                remarks.not_carried(list, reason);
            }
        }
        let basebackup = Basebackup::of(settings, remarks)?;
        let login = Login::of(settings, remarks);
        if let Some(standby) = &standby {
            // `restore_command` may have variables, because a shell runs it.
            for name in ["host", "port", "create_replica_methods"] {
                standby.get(name).map(|setting| setting.refuse_variables()).transpose()?;
            }
        }
        let remote = standby.as_ref().and_then(|standby| Remote::of(standby, &login, remarks));

        let is_standby_cluster = standby.is_some();
        let (names, methods_at, remote_methods) = match (&standby, &remote) {
            (Some(standby), Some(_)) => {
                let others = (standby_names != local_names).then_some(standby_names);
                if others.is_some() {
                    let says = "there are two lists of methods: while there is a server to copy from, the list of the standby cluster \
                                applies, otherwise the list in `postgresql`; remove [source] when the cluster stops being a standby \
                                cluster";
                    remarks.note(standby_list.as_ref().unwrap_or(standby), says);
                }
                (local_names, setting.as_ref().map(place), others)
            }
            (Some(standby), None) => {
                let says = "the standby cluster has no host to copy from, so its own list of methods is carried over, and \
                            only methods with no_leader are tried";
                remarks.note(standby_list.as_ref().unwrap_or(standby), says);
                (standby_names, Some(place(standby_list.as_ref().unwrap_or(standby))), None)
            }
            (None, _) => (local_names, setting.as_ref().map(place), None),
        };
        let section = settings.postgresql("basebackup");
        note_bootstrap(settings, [&setting, &standby_list, &section], remarks);
        let mut superseded: Vec<_> =
            setting.iter().map(|setting| (setting.path.clone(), place(setting))).collect();
        let sections = methods.programs.iter().filter_map(|method| settings.postgresql(&method.original));
        superseded.extend(sections.map(|section| (section.path.clone(), place(&section))));
        Ok(Self {
            file: local.file().to_owned(),
            member: member.map(|member| member.value),
            scope,
            datadir,
            bin_dir,
            config_file,
            trigger_file,
            methods: names,
            methods_at,
            programs: methods.programs,
            is_understudy_without_leader: methods.is_understudy_without_leader,
            basebackup,
            login,
            remote,
            remote_methods,
            is_standby_cluster,
            superseded,
            kept: section.map(|section| (section.path.clone(), place(&section))),
        })
    }
}

fn place(setting: &Setting<'_>) -> String {
    format!("{}:{}", setting.file(), setting.line())
}

/// Returns the list of methods that Patroni uses (`Postgresql.create_replica_methods`).
fn listed_in<'d>(settings: &Settings<'d>, remarks: &mut Remarks) -> Option<Setting<'d>> {
    let newer = settings.postgresql("create_replica_methods");
    let older = settings.postgresql("create_replica_method");
    match (newer.filter(Setting::is_true), older.filter(Setting::is_true)) {
        (Some(newer), Some(older)) => {
            remarks
                .note(&older, "Patroni ignores this older name, because `create_replica_methods` is set too");
            Some(newer)
        }
        (newer, older) => newer.or(older),
    }
}

/// Returns the methods, or `basebackup` if Patroni has no list. If every method of the list was left out, the result is empty.
fn or_basebackup(names: Vec<String>, listed: &[Listed<'_>]) -> Vec<String> {
    if listed.is_empty() { vec![BASEBACKUP.to_owned()] } else { names }
}

/// Reads a setting that is a name.
fn name(setting: Option<Setting<'_>>, remarks: &mut Remarks) -> Result<Option<Carried>, Unreadable> {
    let Some(setting) = setting.filter(Setting::is_true) else { return Ok(None) };
    setting.refuse_variables()?;
    let text = python::str(setting.value).filter(|text| is_seen(text));
    if text.is_none() {
        remarks
            .not_carried(&setting, "the value has invisible characters, or cannot be converted to a string");
    } else if setting.value.text().is_none() {
        remarks.note(
            &setting,
            "without quotes, YAML 1.1 reads this as another type; the string that Patroni makes of it is carried over",
        );
    }
    Ok(text.map(|value| Carried { value, at: place(&setting) }))
}

/// Reads a setting that is an absolute path.
fn path(setting: Option<Setting<'_>>, remarks: &mut Remarks) -> Result<Option<Carried>, Unreadable> {
    let Some(setting) = setting.filter(Setting::is_true) else { return Ok(None) };
    setting.refuse_variables()?;
    match setting.value.text() {
        Some(text) if text.starts_with('/') && is_seen(text) => {
            Ok(Some(Carried { value: text.to_owned(), at: place(&setting) }))
        }
        Some(text) if text.starts_with('/') => {
            remarks.not_carried(&setting, "the path has invisible characters");
            Ok(None)
        }
        _ => {
            remarks.not_carried(
                &setting,
                "the path is not absolute, and Understudy accepts only absolute paths",
            );
            Ok(None)
        }
    }
}

/// Returns whether every character of a name is visible.
fn is_seen(text: &str) -> bool {
    !text.is_empty() && is_printable(text) && text.trim() == text
}

/// Returns the server's configuration file if it is not in the data directory.
fn config_file(
    settings: &Settings<'_>,
    datadir: Option<&Carried>,
    remarks: &mut Remarks,
) -> Result<Option<Carried>, Unreadable> {
    let Some(setting) = settings.postgresql("config_dir").filter(Setting::is_true) else { return Ok(None) };
    let Some(directory) = path(Some(setting.clone()), remarks)? else { return Ok(None) };
    let directory = directory.value.trim_end_matches('/');
    if datadir.is_some_and(|datadir| datadir.value.trim_end_matches('/') == directory) {
        return Ok(None);
    }
    let says = "Patroni writes postgresql.conf there after Understudy has ended. `config_file` is written as a comment, because \
                Understudy refuses it while the file does not exist";
    remarks.note(&setting, says);
    let value = format!("{directory}/postgresql.conf");
    Ok(Some(Carried { value, at: place(&setting) }))
}

/// Returns the trigger file relative to the data directory (`Bootstrap._post_restore`).
fn trigger_file(
    settings: &Settings<'_>,
    datadir: Option<&Carried>,
    remarks: &mut Remarks,
) -> Option<Carried> {
    let section = settings.postgresql("recovery_conf")?;
    let names = ["promote_trigger_file", "trigger_file"];
    let setting = names.into_iter().find_map(|name| section.get(name).filter(Setting::is_true))?;
    let text = setting.value.text();
    let below = |text: &str| {
        let datadir = format!("{}/", datadir?.value.trim_end_matches('/'));
        text.strip_prefix(&datadir).map(str::to_owned)
    };
    let relative =
        text.and_then(|text| if text.starts_with('/') { below(text) } else { Some(text.to_owned()) });
    let is_inside =
        |path: &String| is_seen(path) && path.split('/').all(|part| !matches!(part, "" | "." | ".."));
    match relative.filter(is_inside) {
        Some(value) => Some(Carried { value, at: place(&setting) }),
        None => {
            remarks.not_carried(
                &setting,
                "Understudy removes only a trigger file in the data directory: remove this file yourself",
            );
            None
        }
    }
}

/// Adds remarks about settings that stay in Patroni's file, and about those that Understudy cannot use.
fn stays_with_patroni(settings: &Settings<'_>, datadir: Option<&Carried>, remarks: &mut Remarks) {
    if let Some(setting) = settings.postgresql("recovery_conf").filter(Setting::is_true) {
        remarks.note(&setting, "stays with Patroni, which writes it after Understudy has ended");
    }
    if let Some(setting) = settings.postgresql("pgpass").filter(Setting::is_true) {
        let path = setting.value.text().unwrap_or_default();
        let is_inside = datadir.is_some_and(|datadir| {
            path.strip_prefix(datadir.value.trim_end_matches('/'))
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        });
        match is_inside {
            true => remarks.not_carried(
                &setting,
                "the passfile is in the data directory, which a run empties, so \
                 Understudy refuses it: move the passfile",
            ),
            false => remarks.note(
                &setting,
                "stays with Patroni, which passes its passfile to Understudy in \
                 PGPASSFILE",
            ),
        }
    }
    if let Some(setting) = settings.postgresql("bin_name").filter(Setting::is_true) {
        let is_other = |name: &Setting<'_>| name.value.text() != Some(name.name().as_str());
        if setting.settings().iter().any(is_other) || setting.value.pairs().is_none() {
            remarks.not_carried(
                &setting,
                "Understudy calls PostgreSQL's programs by their standard names: \
                 create links with these names in `bin_dir`",
            );
        }
    }
    if let Some(setting) = settings.postgresql("krbsrvname").filter(Setting::is_true) {
        remarks.not_carried(
            &setting,
            "Understudy passes no environment variables to pg_basebackup, so \
             PGKRBSRVNAME cannot be set",
        );
    }
    if let Some(setting) = settings.postgresql("waldir") {
        let reason = "Patroni does not know this key and ignores it: `waldir` belongs in `basebackup`. In \
             Understudy's configuration, write wal_dir below [replica]";
        remarks.not_carried(&setting, reason);
    }
    if let Some(setting) = settings.top("standby_cluster").filter(Setting::is_true) {
        remarks.not_carried(
            &setting,
            "Patroni reads `standby_cluster` only from the dynamic configuration, and ignores it here",
        );
    }
    if let Some(standby) = settings.standby_cluster() {
        for name in
            ["primary_slot_name", "restore_command", "archive_cleanup_command", "recovery_min_apply_delay"]
        {
            if let Some(setting) = standby.get(name).filter(Setting::is_true) {
                remarks.note(
                    &setting,
                    "stays with Patroni, which configures the standby after Understudy has ended",
                );
            }
        }
    }
    let Some(bootstrap) = settings.top("bootstrap") else { return };
    if let Some(method) = bootstrap.get("method").filter(Setting::is_true) {
        remarks
            .note(&method, "stays with Patroni: it creates the first member of a new cluster, not a replica");
    }
    let initdb = bootstrap.get("initdb");
    let items = initdb.iter().flat_map(Setting::items).flat_map(|item| item.settings());
    for option in
        initdb.iter().flat_map(Setting::settings).chain(items).filter(|option| option.name() == "waldir")
    {
        let says = "initdb puts the WAL of a new cluster there. For a replica, set wal_dir = \"...\" below [replica], or `waldir` in \
                    the section `basebackup` of Patroni's file";
        remarks.note(&option, says);
    }
}

/// Adds a remark that settings from `bootstrap.dcs` may be out of date.
fn note_bootstrap(settings: &Settings<'_>, used: [&Option<Setting<'_>>; 3], remarks: &mut Remarks) {
    let Some(dcs) = settings.bootstrap_dcs() else { return };
    let is_below = |setting: &&Setting<'_>| setting.path.starts_with("bootstrap.dcs.");
    if used.into_iter().flatten().any(|setting| is_below(&setting)) {
        let says = "Patroni used these settings when the cluster was created, and they may have changed since: pass the output of \
                    `patronictl show-config` with --dynamic";
        remarks.note(&dcs, says);
    }
}
