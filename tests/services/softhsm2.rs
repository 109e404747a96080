//! SoftHSM tokens in a folder of their own. Everything here is done with SoftHSM's and OpenSC's tools, so that our own code is
//! judged by others. Each keeper process gets the folder through its environment: tests need not take turns.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::Missing;

/// The user PIN of every token.
pub const PIN: &str = "pin-of-tests-8241";

/// Tokens in one folder.
pub struct SoftHsm {
    folder: tempfile::TempDir,
    /// SoftHSM's module.
    pub module: PathBuf,
}

impl SoftHsm {
    /// No tokens yet.
    fn new() -> Result<Self, Missing> {
        let places = [
            "/usr/lib/softhsm",
            "/usr/lib64/softhsm",
            "/usr/lib64/pkcs11",
            "/usr/lib/pkcs11",
            "/usr/local/lib/softhsm",
        ];
        let module = places.map(|place| Path::new(place).join("libsofthsm2.so")).into_iter().find(|path| path.exists());
        let module = module.ok_or_else(|| Missing("libsofthsm2.so; the Debian package is softhsm2".into()))?;
        for (tool, package) in [("softhsm2-util", "softhsm2"), ("pkcs11-tool", "opensc"), ("openssl", "openssl")] {
            let found = Command::new(tool).arg("--version").output();
            found.map_err(|error| Missing(format!("{tool}: {error}; the Debian package is {package}")))?;
        }
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("tokens")).expect("a folder for tokens");
        std::fs::create_dir(folder.path().join("away")).expect("a folder for tokens that are away");
        Ok(Self { folder, module })
    }

    /// With tokens of these labels.
    ///
    /// # Errors
    /// If SoftHSM or OpenSC's tool is not installed.
    pub fn with_tokens(labels: &[&str]) -> Result<Self, Missing> {
        let hsm = Self::new()?;
        labels.iter().for_each(|label| hsm.make_token(label));
        Ok(hsm)
    }

    /// The folder, for further files.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// What keepers need in their environment.
    pub fn environment(&self) -> (String, String) {
        ("SOFTHSM2_CONF".into(), self.path().join("softhsm2.conf").to_str().expect("UTF-8").into())
    }

    /// A program that uses these tokens.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.envs([self.environment()]);
        command
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Output {
        let output = self.command(program).args(arguments).output().expect("it starts");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{program} {arguments:?}: {}{}", text(&output.stdout), text(&output.stderr));
        output
    }

    pub fn make_token(&self, label: &str) {
        self.make_token_with(label, PIN);
    }

    /// A token with another PIN than most.
    pub fn make_token_with(&self, label: &str, pin: &str) {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/hsm/softhsm2/make-token");
        let (folder, file) = (self.path().to_str().expect("UTF-8"), self.path().join("token-pin"));
        std::fs::write(&file, pin).expect("written");
        self.run(script, &[folder, label, file.to_str().expect("UTF-8")]);
    }

    /// OpenSC's tool on a token; what it prints.
    pub fn tool(&self, token: &str, arguments: &[&str]) -> String {
        let module = self.module.to_str().expect("UTF-8");
        let login = ["--module", module, "--token-label", token, "--login", "--pin", PIN];
        let output = self.run("pkcs11-tool", &[&login, arguments].concat());
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// What OpenSC's tool tells of all tokens, without a login.
    pub fn list_tokens(&self) -> String {
        let module = self.module.to_str().expect("UTF-8");
        let output = self.run("pkcs11-tool", &["--module", module, "--list-token-slots"]);
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// A new key pair made by OpenSC's tool; `kind` as that names it, such as `EC:prime256v1`.
    pub fn make_key(&self, token: &str, kind: &str, label: &str, id: &str) {
        self.tool(token, &["--keypairgen", "--key-type", kind, "--label", label, "--id", id, "--usage-sign"]);
    }

    /// One new P-256 key on all these tokens, as a vendor clones it.
    pub fn clone_key(&self, tokens: &[&str], label: &str) {
        let file = self.new_key_file(label);
        tokens.iter().for_each(|token| self.import_key(token, PIN, &file, label));
    }

    /// A new P-256 key in a file (PKCS#8 PEM).
    pub fn new_key_file(&self, name: &str) -> String {
        let file = self.path().join(format!("{name}.p8")).to_str().expect("UTF-8").to_owned();
        self.run("openssl", &["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", &file]);
        file
    }

    /// Puts the key in a file onto a token, both halves.
    pub fn import_key(&self, token: &str, pin: &str, file: &str, label: &str) {
        let place = ["--import", file, "--token", token, "--label", label, "--id", "01", "--pin", pin];
        self.run("softhsm2-util", &place);
    }

    /// The folder that holds a token now: here or away.
    fn token_folder(&self, label: &str, place: &str) -> PathBuf {
        let folders = std::fs::read_dir(self.path().join(place)).expect("a folder");
        let mut folders = folders.map(|entry| entry.expect("an entry").path());
        // SoftHSM writes the label into the token's object, padded.
        let holds = |folder: &PathBuf| {
            let object = std::fs::read(folder.join("token.object")).unwrap_or_default();
            object.windows(label.len() + 1).any(|window| window == format!("{label} ").as_bytes())
        };
        folders.find(holds).unwrap_or_else(|| panic!("no token {label} in {place}"))
    }

    /// Takes the token away, as if it was pulled out.
    pub fn take_away(&self, label: &str) {
        let from = self.token_folder(label, "tokens");
        let to = self.path().join("away").join(from.file_name().expect("a name"));
        std::fs::rename(from, to).expect("moved");
    }

    /// Puts it back.
    pub fn put_back(&self, label: &str) {
        let from = self.token_folder(label, "away");
        let to = self.path().join("tokens").join(from.file_name().expect("a name"));
        std::fs::rename(from, to).expect("moved");
    }

    /// The processes that keep the token called `label`: those with its label among their arguments and this folder in their
    /// environment.
    pub fn keepers(&self, label: &str) -> Vec<u32> {
        let (_, conf) = self.environment();
        let processes = std::fs::read_dir("/proc").expect("a Linux machine").flatten();
        let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let keeps = |pid: &u32| {
            let read = |file: &str| std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            let holds = |bytes: &[u8], part: &str| bytes.windows(part.len()).any(|window| window == part.as_bytes());
            holds(&read("cmdline"), &format!("token-keeper\0--\0{label}\0")) && holds(&read("environ"), &conf)
        };
        pids.filter(keeps).collect()
    }
}
