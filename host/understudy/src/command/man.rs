//! `man`: the manual pages, made from the definitions of the command line and from the texts in this module.

use clap::CommandFactory;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use super::{NotStarted, USAGE, patroni, print, report};
use crate::cli::{CREATE_NOTES, Cli, EXIT_CODES, RUN_NOTES};
use crate::plugin_path;
use crate::render::Terminal;
use crate::render::text::printable;

/// Prints the page of the program, or of one of its verbs, and returns the exit code.
pub fn run(verb: Option<&str>) -> u8 {
    match page(verb) {
        Ok(page) => {
            print(&page);
            0
        }
        Err(error) => {
            Terminal::stderr().line(&format!("understudy: {}", printable(&error.message)));
            error.exit_code
        }
    }
}

/// Returns a page in roff.
fn page(verb: Option<&str>) -> Result<String, NotStarted> {
    let mut program = Cli::command();
    program.build();
    let verbs: Vec<_> = program.get_subcommands().filter(|verb| !verb.is_hide_set()).collect();
    let command = match verb {
        None => &program,
        Some(name) => *verbs.iter().find(|verb| verb.get_name() == name).ok_or_else(|| NotStarted {
            exit_code: USAGE,
            message: format!(
                "there is no manual page of `{name}`: the verbs are {}",
                verbs.iter().map(|verb| verb.get_name()).collect::<Vec<_>>().join(", ")
            ),
            problems: Vec::new(),
        })?,
    };
    let man = Man::new(command.clone());
    // `clap_mangen` would leave out the empty date, and the next field would take its place.
    let name = command.get_display_name().unwrap_or_else(|| command.get_name());
    let version = env!("CARGO_PKG_VERSION");
    let mut page = format!(".TH {name} 1 \"\" \"understudy {version}\" \"Understudy\"\n").into_bytes();
    // This module writes the sections after the flags. `clap_mangen` would write them as one section, EXTRA, without paragraphs.
    let rendered = man
        .render_name_section(&mut page)
        .and_then(|()| man.render_synopsis_section(&mut page))
        .and_then(|()| man.render_description_section(&mut page))
        .and_then(|()| man.render_options_section(&mut page))
        .and_then(|()| if verb.is_none() { man.render_subcommands_section(&mut page) } else { Ok(()) })
        .and_then(|()| sections(verb).to_writer(&mut page));
    rendered.map_err(NotStarted::failed)?;
    Ok(String::from_utf8_lossy(&page).into_owned())
}

/// Returns the sections of a page that `clap_mangen` does not write.
fn sections(verb: Option<&str>) -> Roff {
    let mut roff = Roff::new();
    match verb {
        None => {
            exit_status(&mut roff, "understudy create");
            files(&mut roff);
            environment(&mut roff);
            examples(
                &mut roff,
                &[
                    ("Show what a run would do, then do it:", "understudy check\nunderstudy create"),
                    ("Look at a method before it is trusted:", "understudy inspect tarball"),
                    (
                        "Try it, without a configuration:",
                        "understudy run tarball --option directory=/mnt/backups/monday --read /mnt/backups --into /tmp/try",
                    ),
                ],
            );
        }
        Some("create") => {
            notes(&mut roff, CREATE_NOTES);
            exit_status(&mut roff, "understudy create");
            files(&mut roff);
            environment(&mut roff);
            examples(
                &mut roff,
                &[
                    (
                        "Create the replica of a configuration, and write a report:",
                        "understudy create --config /etc/understudy/understudy.toml --report /tmp/report.json",
                    ),
                    (
                        "Give the method tarball another directory this once:",
                        "understudy create --method tarball --directory=/mnt/backups/monday",
                    ),
                    (
                        "Copy from the leader, whatever the configuration says:",
                        "understudy create --from-leader",
                    ),
                ],
            );
        }
        Some("check") => {
            section(&mut roff, "EXIT STATUS");
            paragraph(
                &mut roff,
                "0 if at least one method would be used, with --strict if all would; otherwise the code with which a run of \
                 understudy-create(1) would end.",
            );
            files(&mut roff);
            environment(&mut roff);
            examples(
                &mut roff,
                &[
                    (
                        "Show what a run would do:",
                        "understudy check --config /etc/understudy/understudy.toml",
                    ),
                    (
                        "Check every method in a nightly job, with the result as JSON:",
                        "understudy check --strict --json",
                    ),
                ],
            );
        }
        Some("run") => {
            notes(&mut roff, RUN_NOTES);
            exit_status(&mut roff, "understudy run");
            paragraph(
                &mut roff,
                "With --plan-only, 0 means that the method would be used, and any other code is the one with which the run would end.",
            );
            files(&mut roff);
            environment(&mut roff);
            examples(
                &mut roff,
                &[
                    (
                        "Try a plugin with a backup, as the user postgres:",
                        "understudy run ./acme.wasm --option directory=/mnt/backups/monday --read /mnt/backups --into /tmp/try",
                    ),
                    (
                        "Restore from a store, and follow a server:",
                        "understudy run walg --option store=repo --store repo=file:///mnt/walg --into /srv/try --source \
                         \"host=10.0.0.1 user=replicator\" --passfile /etc/understudy/pgpass",
                    ),
                    (
                        "Go on with a configuration file:",
                        "understudy run tarball --option directory=/mnt/backups/monday --read /mnt/backups --into /srv/replica \
                         --print-config >understudy.toml\nunderstudy create --config understudy.toml",
                    ),
                ],
            );
        }
        Some("inspect") => {
            section(&mut roff, "EXIT STATUS");
            terms(
                &mut roff,
                &[
                    ("0", "the plugin, or the difference between two plugins, was shown"),
                    ("1", "a plugin cannot be read or is refused"),
                    ("2", "usage, or there is no plugin of this name"),
                ],
            );
            files(&mut roff);
            environment(&mut roff);
            examples(
                &mut roff,
                &[
                    ("Show a method that comes with the program:", "understudy inspect tarball"),
                    (
                        "Show what else a new version of a plugin asks for:",
                        "understudy inspect old.wasm new.wasm",
                    ),
                ],
            );
        }
        Some("new") => {
            section(&mut roff, "EXIT STATUS");
            terms(
                &mut roff,
                &[
                    ("0", "the project was written"),
                    ("1", "the project could not be written, and nothing of it is left"),
                    (
                        "2",
                        "usage: NAME cannot be the name of a method or exists already, or --sdk leads to no SDK",
                    ),
                ],
            );
            examples(
                &mut roff,
                &[
                    (
                        "Make a method and test it:",
                        "understudy new acme\ncd acme\ncargo test\ncargo build --release --target wasm32-wasip2",
                    ),
                    (
                        "Use the SDK of a checkout of Understudy instead of the registry's:",
                        "understudy new acme --licence mit --sdk ~/src/understudy",
                    ),
                ],
            );
        }
        Some("patroni") => {
            section(&mut roff, "EXIT STATUS");
            terms(&mut roff, &patroni::EXIT_CODES);
            examples(
                &mut roff,
                &[
                    (
                        "Convert the configuration of a cluster as it is now:",
                        "patronictl -c /etc/patroni/patroni.yml show-config >dynamic.yml\nunderstudy patroni /etc/patroni/patroni.yml \
                         --dynamic dynamic.yml -o /etc/understudy/understudy.toml",
                    ),
                    (
                        "In a script: what could not be carried over:",
                        "understudy patroni /etc/patroni/patroni.yml --json | jq .not_carried",
                    ),
                ],
            );
        }
        Some("report") => {
            section(&mut roff, "EXIT STATUS");
            terms(&mut roff, &report::EXIT_CODES);
            examples(
                &mut roff,
                &[
                    (
                        "Show what the methods of a run asked for:",
                        "understudy create --audit /tmp/audit.jsonl\nunderstudy report /tmp/audit.jsonl",
                    ),
                    (
                        "In a script: everything that was denied:",
                        "understudy report --json /tmp/audit.jsonl | jq '.methods[].capabilities[].denials.entries[]'",
                    ),
                ],
            );
        }
        Some(_) => {
            section(&mut roff, "EXIT STATUS");
            terms(&mut roff, &[("0", "the script was printed"), ("2", "usage")]);
            examples(
                &mut roff,
                &[("For bash:", "understudy completions bash >/etc/bash_completion.d/understudy")],
            );
        }
    }
    section(&mut roff, "SEE ALSO");
    let program = Cli::command();
    // The verbs that print a page or a script are described in the program's own page.
    let verbs = program.get_subcommands().map(clap::Command::get_name);
    let verbs = verbs.filter(|verb| !["completions", "man"].contains(verb));
    let pages: Vec<_> = [program.get_name().to_owned()]
        .into_iter()
        .chain(verbs.map(|verb| format!("understudy-{verb}")))
        .collect();
    let own = verb.map_or("understudy".to_owned(), |verb| format!("understudy-{verb}"));
    for page in pages.iter().filter(|page| **page != own) {
        roff.text([bold(page.as_str()), roman("(1),")]);
    }
    roff.text([bold("pg_basebackup"), roman("(1)")]);
    roff
}

fn notes(roff: &mut Roff, notes: &str) {
    section(roff, "NOTES");
    notes.split("\n\n").for_each(|part| paragraph(roff, part));
}

fn section(roff: &mut Roff, title: &str) {
    roff.control("SH", [title]);
}

/// Writes a paragraph. Indented lines are not filled.
fn paragraph(roff: &mut Roff, text: &str) {
    roff.control("PP", []);
    for line in text.lines() {
        match line.strip_prefix("  ") {
            None => {
                roff.text([roman(line)]);
            }
            Some(line) => code(roff, line),
        }
    }
}

fn code(roff: &mut Roff, lines: &str) {
    roff.control("RS", ["4"]).control("nf", []);
    for line in lines.lines() {
        roff.text([roman(line)]);
    }
    roff.control("fi", []).control("RE", []);
}

fn terms(roff: &mut Roff, terms: &[(&str, &str)]) {
    for (term, meaning) in terms {
        roff.control("TP", []);
        roff.text([bold(*term)]);
        roff.text([roman(*meaning)]);
    }
}

fn exit_status(roff: &mut Roff, of: &str) {
    section(roff, "EXIT STATUS");
    roff.text([roman("The codes of "), bold(of), roman(":")]);
    let codes = EXIT_CODES.map(|(code, meaning)| (code.to_string(), meaning));
    let codes: Vec<_> = codes.iter().map(|(code, meaning)| (code.as_str(), *meaning)).collect();
    terms(roff, &codes);
}

fn files(roff: &mut Roff) {
    section(roff, "FILES");
    let [first, second] = plugin_path::DEFAULT.map(|directory| format!("{directory}/*.wasm"));
    terms(
        roff,
        &[
            ("/etc/understudy/understudy.toml", "the configuration, unless --config names another"),
            (
                "/usr/share/doc/understudy/examples/understudy.toml",
                "a configuration to begin with, where Debian's package is installed",
            ),
            (first.as_str(), "plugins"),
            (second.as_str(), "plugins of packages"),
            (
                "~/.local/state/understudy",
                "state files and compiled plugins, unless state_dir names another directory",
            ),
            ("~/.cache/understudy/components", "plugins that understudy inspect compiled"),
        ],
    );
}

fn environment(roff: &mut Roff) {
    section(roff, "ENVIRONMENT");
    terms(
        roff,
        &[
            ("PGPASSFILE", "the passfile of the source"),
            (
                plugin_path::VARIABLE,
                "directories, between colons, in which plugins are looked up, unless plugin_path of the configuration names them",
            ),
            ("HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY", "proxies of stores"),
            ("XDG_CACHE_HOME", "where understudy inspect keeps compiled plugins"),
        ],
    );
    paragraph(
        roff,
        "A configuration can name further variables that hold passwords, credentials and keys, and a store with credentials = \
         \"auto\" reads those of its cloud.",
    );
}

fn examples(roff: &mut Roff, examples: &[(&str, &str)]) {
    section(roff, "EXAMPLES");
    for (what, command) in examples {
        paragraph(roff, what);
        code(roff, command);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_that_help_names_has_a_page_with_its_flags() {
        let program = Cli::command();
        for verb in program.get_subcommands().filter(|verb| !verb.is_hide_set()) {
            let page = page(Some(verb.get_name())).unwrap();
            assert!(page.starts_with(&format!(".TH understudy-{} 1 \"\"", verb.get_name())), "{page}");
            for flag in verb.get_arguments().filter(|flag| !flag.is_hide_set()) {
                if let Some(long) = flag.get_long() {
                    assert!(page.contains(&long.replace('-', "\\-")), "{long} in {page}");
                }
            }
            for part in ["EXIT STATUS", "EXAMPLES", "SEE ALSO"] {
                assert!(page.contains(part), "{part} in {page}");
            }
        }
        let own = page(None).unwrap();
        for part in [".TH understudy 1", "understudy\\-create(1)", "FILES", "ENVIRONMENT", "143"] {
            assert!(own.contains(part), "{part} in {own}");
        }
        let unknown = page(Some("man")).unwrap_err();
        assert_eq!(unknown.exit_code, USAGE);
        assert!(
            unknown.message.contains("create, check, run, inspect, new, patroni, report, completions"),
            "{}",
            unknown.message
        );
    }
}
