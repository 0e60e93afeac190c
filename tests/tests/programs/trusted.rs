//! A program cannot be granted write access to the files that a run trusts.

use std::fs;

use crate::stage::Stage;

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn no_grant_lets_a_program_write_itself_the_audit_file_or_the_folder_of_plugins() {
    let stage = Stage::new("programs-trusted");
    let bin = stage.replica.directory("bin").unwrap();
    let script = stage.script("bin/tool", "echo 'echo changed' >> $0");
    let before = fs::read_to_string(&script).unwrap();
    let logs = stage.replica.directory("logs").unwrap();
    let audit = logs.join("audit.jsonl");
    let folder = stage.replica.path("");
    for (written, what) in
        [(&bin, "programs.tool.path"), (&logs, "--audit"), (&folder, "programs.tool.write")]
    {
        stage.tool("", &script, &format!(", write = [{written:?}]"));
        let ended = stage.replica.create(&["--audit", audit.to_str().unwrap()]).unwrap();
        let attempt = ended.attempt("hostile");
        assert_eq!(attempt["outcome"], "rejected", "{}", ended.output);
        let message = attempt["message"].as_str().unwrap();
        assert!(message.contains("`programs.tool.write` names") && message.contains(what), "{message}");
        assert_eq!(ended.code(), Some(3), "{}", ended.output);
    }
    assert_eq!(fs::read_to_string(&script).unwrap(), before);
    let text = fs::read_to_string(&audit).unwrap();
    assert!(text.lines().all(|line| line.starts_with('{')), "{text}");
}
