//! The control plane daemon. All of it is in the library; this file only turns the outcome into an exit code.

fn main() -> std::process::ExitCode {
    controld::cli::main()
}
