//! Arguments → settings → run → exit code; nothing else.

fn main() -> std::process::ExitCode {
    understudy::cli::main()
}
