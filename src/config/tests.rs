use std::collections::HashMap;
use std::io::Write;

use super::*;

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(text.as_bytes()).expect("written");
    file
}

fn environment(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
}

fn load_text(text: &str, variables: &[(&str, &str)], overrides: &[&str]) -> Result<Loaded, Faults> {
    let file = file(text);
    let overrides: Vec<String> = overrides.iter().map(ToString::to_string).collect();
    load_from(None, Some(file.path()), environment(variables), &overrides)
}

fn faults(text: &str) -> Vec<String> {
    load_text(text, &[], &[]).expect_err("faulty").0.iter().map(ToString::to_string).collect()
}

#[test]
fn defaults_are_valid_and_within_their_bounds() {
    let loaded = load_from(None, None, HashMap::new(), &[]).expect("the defaults are valid");
    assert_eq!(loaded.settings, Settings::defaults());
}

#[test]
fn later_layers_win_and_every_value_knows_its_origin() {
    let text = "[flow]\nslots = 1\n[uniqueness]\nslots = 1\n[signing]\nslots = 1\n";
    let variables = [("NOTARY__UNIQUENESS__SLOTS", "2"), ("NOTARY__SIGNING__SLOTS", "2"), ("PATH", "/bin")];
    let loaded = load_text(text, &variables, &["signing.slots=3"]).expect("valid");
    let settings = &loaded.settings;
    assert_eq!((settings.flow.slots, settings.uniqueness.slots, settings.signing.slots), (1, 2, 3));
    assert!(loaded.origin("flow.slots").starts_with("file "));
    let origins = ["uniqueness.slots", "signing.slots", "broker.listen"].map(|key| loaded.origin(key));
    assert_eq!(origins, ["environment", "--set", "default"]);
}

#[test]
fn every_fault_is_reported_in_one_go_with_the_path_to_its_key() {
    let found = faults(
        "[flow]\nslots = 0\n[uniqueness]\nbatch_requests_max = \"many\"\n[broker]\nlisten = \"0.0.0.0:5672\"\n\
         kind = \"carrier-pigeon\"\n[worker]\nname = \"nobody\"\n",
    );
    for key in ["flow.slots", "uniqueness.batch_requests_max", "broker.listen", "broker.kind", "worker.name"] {
        assert!(found.iter().any(|fault| fault.starts_with(key)), "{key} in {found:?}");
    }
}

#[test]
fn unknown_keys_are_faults_with_a_suggestion() {
    let found = faults("[flow]\nslot = 5\n[stroe]\npath = \"x\"\n");
    assert!(
        found.iter().any(|fault| fault.contains("flow.slot") && fault.contains("did you mean flow.slots?")),
        "{found:?}"
    );
    assert!(
        found.iter().any(|fault| fault.contains("stroe.path") && fault.contains("did you mean store.path?")),
        "{found:?}"
    );
    let unknown =
        load_text("", &[("NOTARY__FLOW__SLOTZ", "1")], &["flow=1", "nonsense"]).expect_err("faulty").to_string();
    for part in ["flow.slotz", "environment", "--set nonsense"] {
        assert!(unknown.contains(part), "{part} in {unknown}");
    }
}

#[test]
fn duplicate_keys_and_broken_files_are_faults() {
    assert_eq!(faults("[flow]\nslots = 1\nslots = 2\n").len(), 1);
    assert_eq!(faults("[flow\n").len(), 1);
    let missing = load_from(None, Some(Path::new("no/such/file.toml")), HashMap::new(), &[]).expect_err("missing");
    assert!(missing.to_string().contains("no/such/file.toml"), "{missing}");
}

#[test]
fn a_secret_in_clear_is_refused_and_never_repeated() {
    let found = faults("[signing]\npassphrase = \"hunter2-hunter2\"\n").join("\n");
    assert!(found.contains("signing.passphrase") && found.contains("file:PATH, env:NAME"), "{found}");
    assert!(!found.contains("hunter2"), "{found}");
}

#[test]
fn relative_paths_start_at_the_files_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("notary.toml");
    std::fs::write(&path, "[store]\npath = \"here.store\"\n").expect("written");
    std::fs::write(folder.path().join("pass"), "secret\n").expect("written");
    let loaded = load_from(None, Some(&path), HashMap::new(), &["signing.passphrase=file:pass".into()]).expect("valid");
    assert_eq!(loaded.settings.store.path, folder.path().join("here.store"));
    assert_eq!(loaded.settings.signing.passphrase.fetch().expect("there").as_str(), "secret");
}

#[test]
fn every_setting_is_documented_and_shown() {
    let reference = Settings::reference();
    let shown: Vec<_> = Settings::defaults().values().into_iter().collect();
    assert_eq!(reference.len(), shown.len());
    for (setting, (key, value)) in reference.iter().zip(shown) {
        assert_eq!((setting.key, &setting.default), (key, &value));
        assert!(setting.doc.len() > 20 && setting.doc.ends_with('.'), "{key}: {}", setting.doc);
    }
}

fn secret(reference: &str) -> Result<String, SecretError> {
    SecretRef::parse(reference)?.fetch().map(|secret| secret.to_string())
}

#[test]
fn a_command_tells_a_secret_by_its_first_line_and_no_shell_sees_it() {
    assert_eq!(secret("exec:printf hunter2\\nmore").expect("it works"), "hunter2");
    assert_eq!(secret("exec:echo $HOME;id").expect("it works"), "$HOME;id");
    for (failing, word) in
        [("exec:false", "exit"), ("exec:true", "nothing"), ("exec:no-such-program x", "no-such-program")]
    {
        let error = secret(failing).expect_err(failing).to_string();
        assert!(error.contains(word), "{failing}: {error}");
    }
}

#[test]
fn a_credential_is_a_name_in_systemds_folder() {
    assert!(matches!(secret("credential:pin"), Err(SecretError::NoCredentials(name)) if name == "pin"));
    for path in ["credential:../pin", "credential:/etc/pin", "credential:..", "credential:"] {
        assert!(matches!(secret(path), Err(SecretError::NotAReference)), "{path}");
    }
}

#[test]
fn no_reference_is_no_secret() {
    assert!(!SecretRef::from("").is_configured());
    assert!(matches!(secret(""), Err(SecretError::NotConfigured)));
}

#[test]
fn peers_send_to_an_artemis_broker_only() {
    let senders = |kind: &str| {
        let lines = "[broker]\nsenders = \"peers\"\nhosts = \"127.0.0.1\"\nuser = \"w1\"\npassword = \"env:P\"\n";
        let loaded = load_text(&format!("{lines}kind = {kind:?}\n"), &[], &[]);
        loaded.is_err_and(|faults| faults.0.iter().any(|fault| fault.key == "broker.senders"))
    };
    assert!(!senders("artemis"));
    assert!(senders("rabbitmq") && senders("embedded") && senders("p2p"));
}
