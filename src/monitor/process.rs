//! ```text
//!   several workers, each with a cache of its own  ->  which of them is this?
//! ```
//! The process whose cache is served. With several workers each has its own cache, and what one of them shows is said to be
//! all of it if nobody tells them apart.

use std::path::Path;

use serde::Serialize;

/// Characters of a program's name: more says nothing more.
const NAME_CHARACTERS_MAX: usize = 60;

/// Which process it is.
#[derive(Serialize)]
pub(super) struct Process {
    /// Its number.
    id: u32,
    /// What it runs, as "python app.py"; empty where the system does not say.
    program: String,
}

impl Process {
    /// This one.
    pub(super) fn this() -> Self {
        let arguments: Vec<_> = std::env::args_os().take(3).map(|word| word.to_string_lossy().into_owned()).collect();
        Self { id: std::process::id(), program: program(&arguments) }
    }
}

/// The interpreter and its script or module, without their folders and what they were given.
fn program(arguments: &[String]) -> String {
    let said = match arguments {
        [program, option, module, ..] if option == "-m" => format!("{} -m {module}", base(program)),
        // What comes after an option may be anything, a whole program among others.
        [program, script, ..] if !script.starts_with('-') => format!("{} {}", base(program), base(script)),
        [program, ..] => base(program).to_owned(),
        [] => String::new(),
    };
    said.chars().take(NAME_CHARACTERS_MAX).collect()
}

fn base(path: &str) -> &str {
    Path::new(path).file_name().and_then(|name| name.to_str()).unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_named_without_folders_and_arguments() {
        let check = |arguments: &[&str], expected: &str| {
            let arguments: Vec<_> = arguments.iter().map(|&word| word.to_owned()).collect();
            assert_eq!(program(&arguments), expected);
        };
        check(&["/usr/bin/python3", "/srv/shop/app.py", "--password"], "python3 app.py");
        check(&["/usr/bin/python3", "-m", "celery"], "python3 -m celery");
        check(&["/usr/bin/python3", "-c", "secret()"], "python3");
        check(&["python"], "python");
        check(&[], "");
        assert_eq!(program(&["x".repeat(1000)]).len(), NAME_CHARACTERS_MAX);
    }
}
