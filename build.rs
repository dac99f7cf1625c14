//! Compiles `schemas/worker.proto` without a `protoc` on the machine.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=schemas/worker.proto");
    let descriptors = protox::compile(["schemas/worker.proto"], ["schemas"])?;
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}
