#![no_main]
libfuzzer_sys::fuzz_target!(|octets: &[u8]| ferrocast_fuzz::bfd::run(octets));
