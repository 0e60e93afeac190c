use super::*;

fn words(command: &str) -> Vec<Vec<String>> {
    simple_commands(command).unwrap().into_iter().map(|command| command.words).collect()
}

#[test]
fn words_are_split_and_unquoted_as_a_shell_does() {
    for (command, expected) in [
        ("cp /a/%f %p", &[&["cp", "/a/%f", "%p"][..]][..]),
        (r#"a 'b c' "d \"e\" $f" g\ h"#, &[&["a", "b c", "d \"e\" $f", "g h"]]),
        ("cd /x && A=b c; d | e & f", &[&["cd", "/x"], &["A=b", "c"], &["d"], &["e"], &["f"]]),
        ("a >b 2>&1 c </d 3>>e f", &[&["a", "c", "f"]]),
        ("A=$(cat /x) b \"`c d`\"", &[&["A=$", "b", "$"], &["cat", "/x"], &["c", "d"]]),
        ("(a; { b; }) # it's c", &[&["it's", "c"], &["a"], &["{", "b"], &["}"]]),
        ("a ${B:-c d} ${E:=f g}", &[&["a", "$B:-c d", "$E:=f g"], &["E=f g"]]),
        (r"a $'b\'c' ''", &[&["a", "$b'c", ""]]),
        ("a\\\nb c\nd", &[&["ab", "c"], &["d"]]),
        ("", &[]),
        (" ; & ", &[]),
    ] {
        assert_eq!(words(command), expected, "{command}");
    }
}

#[test]
fn a_command_that_a_shell_refuses_is_unreadable() {
    for (command, what) in [
        ("a 'b", "quote"),
        ("a \"b", "quote"),
        ("a $'b", "quote"),
        ("a `b", "backquote"),
        ("a $(b", "bracket"),
        ("(a", "bracket"),
        ("a ${b", "bracket"),
        ("a \"$(b \"c)\"", "bracket"),
    ] {
        assert_eq!(simple_commands(command), Err(Unreadable::NotClosed(what)), "{command}");
    }
}

#[test]
fn the_length_and_the_depth_of_a_command_are_bounded() {
    assert!(simple_commands(&"a".repeat(LONGEST)).is_ok());
    assert_eq!(simple_commands(&"a".repeat(LONGEST + 1)), Err(Unreadable::TooLong));
    for (open, close) in [("(", ")"), ("$(", ")"), ("${", "}"), ("\"$(", ")\"")] {
        let nested = |depth: usize| format!("{}a{}", open.repeat(depth), close.repeat(depth));
        assert!(simple_commands(&nested(DEEPEST)).is_ok(), "{open}");
        assert_eq!(simple_commands(&nested(DEEPEST + 1)), Err(Unreadable::TooDeep), "{open}");
    }
    let backquoted = |depth: usize| {
        (0..depth)
            .fold("a".to_owned(), |inner, _| format!("`{}`", inner.replace('\\', "\\\\").replace('`', "\\`")))
    };
    assert!(simple_commands(&backquoted(DEEPEST)).is_ok());
    assert_eq!(simple_commands(&backquoted(DEEPEST + 1)), Err(Unreadable::TooDeep));
}

#[test]
fn a_command_in_quotes_in_quotes_is_read_up_to_a_depth() {
    let nested = |depth: usize| {
        (0..depth).fold("a".to_owned(), |inner, _| {
            format!("sh -c \"{} x\"", inner.replace('\\', "\\\\").replace('"', "\\\""))
        })
    };
    assert_eq!(fault(&nested(3)), None);
    assert_eq!(fault(&nested(DEEPEST + 1)), Some(CommandFault::Unreadable(Unreadable::TooDeep)));
}

#[test]
fn the_program_of_a_command_is_known_behind_everything_that_may_precede_it() {
    for (command, expected) in [
        ("wal-g wal-fetch", Some("wal-g")),
        ("AWS_SECRET=x wal-g wal-fetch", Some("wal-g")),
        ("P='a secret' /usr/bin/echo", Some("/usr/bin/echo")),
        ("A=$(cat /x) b", Some("b")),
        (">/dev/null A=x b", Some("b")),
        ("if ! b; then c; fi", Some("b")),
        ("(A=hunter2 b)", Some("b")),
        ("A=x; b", Some("b")),
        ("A+=x b", Some("b")),
        ("b;A=hunter2", Some("b")),
        ("\"A=hunter2 c\" d", Some("d")),
        ("1A=hunter2 d", None),
        ("https://u:hunter2@h", None),
        ("$PROGRAM x", None),
        ("A=x", None),
        ("a 'b", None),
        ("", None),
    ] {
        assert_eq!(program(command).as_deref(), expected, "{command}");
    }
}

#[test]
fn variables_are_found_behind_everything_that_may_precede_them() {
    for command in [
        "A=x wal-g wal-fetch",
        "A='x y' wal-g",
        "env -u X A=x wal-g",
        "/usr/bin/env -i A=x wal-g",
        "env -S'A=x wal-g'",
        "env -SA=x wal-g",
        "env --split-string='A=x wal-g'",
        "cd /x && A=x wal-g",
        "export A=x; wal-g",
        "export -n B A=x; wal-g",
        "test -f /x || A=x wal-g",
        "cat /x | A=x wal-g",
        "(A=x wal-g)",
        "{ A=x; wal-g; }",
        "if true; then A=x wal-g; fi",
        "! A=x wal-g",
        ">/dev/null A=x wal-g",
        "wal-g $(A=x b)",
        "wal-g \"`A=x b`\"",
        "wal-g ${A:=x}",
        "wal-g # A=x wal-g",
        "sh -c 'A=x wal-g'",
        "/bin/bash -lc \"cd /x && A=x wal-g\"",
        "bash -c'A=x wal-g'",
        "sh -c \"sh -c 'A=x wal-g'\"",
        "eval A=x",
        "eval 'A=x wal-g'",
        "nice -n 5 env A=x wal-g",
        "sudo -u postgres A=x wal-g",
        "timeout 60 env A=x wal-g",
        "flock /l -c 'A=x wal-g'",
        "ssh backup 'A=x wal-g'",
        "envdir /env sh -c 'A=x wal-g'",
        "chrt 1 env A=x wal-g",
        "xargs -I{} sh -c 'A=x wal-g'",
        "A+=x wal-g",
        "A[0]=x wal-g",
    ] {
        assert_eq!(fault(command), Some(CommandFault::SetsVariables), "{command}");
    }
}

#[test]
fn arguments_with_the_names_of_secrets_are_found() {
    for (command, name) in [
        ("x --password=hunter2", "password"),
        ("x --password hunter2", "password"),
        ("cd /x && x --repo1-cipher-pass=hunter2", "repo1-cipher-pass"),
        ("curl -u user:hunter2 https://h/%f", "-u"),
        ("curl --user=user:hunter2 https://h/%f", "--user"),
        ("curl -H 'Authorization: Bearer hunter2' https://h/%f", "Authorization"),
        ("psql 'host=h password=hunter2'", "password"),
        ("x \"$(y --token=hunter2)\"", "token"),
        ("python3 -c 'x' --api-key=hunter2", "api-key"),
        ("awk -v password=hunter2 1", "password"),
        ("curl 'https://h/%f?a=b&sas=hunter2'", "sas"),
        ("x '{\"apiKey\": \"hunter2\"}'", "apiKey"),
        ("curl -H 'X-Auth: bearer hunter2' https://h/%f", "bearer"),
    ] {
        assert_eq!(fault(command), Some(CommandFault::Secret(name.to_owned())), "{command}");
    }
    assert_eq!(fault("curl https://u:hunter2@h/%f"), Some(CommandFault::Login));
    assert_eq!(fault("sh -c 'curl https://u:hunter2@h/%f'"), Some(CommandFault::Login));
    assert_eq!(fault("x 'y"), Some(CommandFault::Unreadable(Unreadable::NotClosed("quote"))));
}

#[test]
fn a_command_without_secrets_has_no_fault() {
    for command in [
        "cp /archive/%f %p",
        "cp \"/archive/%f\" \"%p\"",
        "pgbackrest --stanza=main archive-get %f \"%p\"",
        "test ! -f /a/%f && cp %p /a/%f",
        "envdir /etc/wal-e.d/env wal-e wal-fetch %f %p",
        "env -i wal-g wal-fetch %f %p",
        "sudo --user=barman barman-wal-restore -P h main %f %p",
        "dd if=/archive/%f of=%p",
        "gunzip < /archive/%f.gz > %p",
        "ssh backup 'cat /archive/%f' > %p",
        "sh -c 'cp /archive/%f %p || exit 1'",
        "awk 'BEGIN { x=1 }'",
        "x --password-file=/p --token=/t --secret $S --no-password -v",
        "x --token=$(cat /t)",
        "curl -u user h; x -u postgres",
        "scp -o 'User=me' h:/a/%f %p",
        "x it\\'s",
        "x \"it's fine\"",
        "rsync -e 'ssh -p 22' h:/archive/%f %p",
    ] {
        assert_eq!(fault(command), None, "{command}");
    }
}

#[test]
fn a_word_is_read_as_a_command_of_its_own() {
    for (word, holds) in [
        ("cd /x && PGPASSWORD=hunter2 y", true),
        ("export A=1; TOKEN=hunter2 y", true),
        ("s3://k:hunter2@b", true),
        ("A=b", false),
        ("it's", false),
        ("cp /a /b", false),
    ] {
        assert_eq!(word_holds_secret(word), holds, "{word}");
    }
}
