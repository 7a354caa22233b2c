//! Messages out as they are, messages in as octets: those of a plugin are only read with every limit in force.
use bytes::{Buf as _, Bytes};
use ferrocast_plugin_proto::v1alpha1::HostMessage;
use prost::Message as _;
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

pub(crate) struct Octets;

impl Codec for Octets {
    type Encode = HostMessage;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Octets {
    type Item = HostMessage;
    type Error = Status;

    fn encode(&mut self, message: HostMessage, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        message.encode(out).map_err(|error| Status::internal(error.to_string()))
    }
}

impl Decoder for Octets {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, octets: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(octets.copy_to_bytes(octets.remaining())))
    }
}
