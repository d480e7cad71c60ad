//! Checked reading of a tensor's sizes by axis name.

use tch::Tensor;

use crate::{Error, Result};

/// The sizes of `tensor`, which must have one axis for each letter in `axes`.
///
/// ```ignore
/// let [b, s, d] = dims("x", &x, ["B", "S", "D"])?;
/// ```
///
/// # Errors
/// When the number of axes differs; the message names tensor, wanted axes and got shape.
pub fn dims<const N: usize>(name: &str, tensor: &Tensor, axes: [&str; N]) -> Result<[i64; N]> {
    let size = tensor.size();
    <[i64; N]>::try_from(size.as_slice()).map_err(|_| {
        let (axes, got) = (axes.join(","), size.len());
        Error::invalid(format!("tensor `{name}` must have {N} axes [{axes}], got {got} with shape {size:?}"))
    })
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    #[test]
    fn sizes_by_name() {
        let x = Tensor::zeros([2, 3, 5], (Kind::Float, Device::Cpu));
        assert_eq!(dims("x", &x, ["B", "S", "D"]).unwrap(), [2, 3, 5]);
        assert_eq!(dims("x", &x.sum(Kind::Float), []).unwrap(), [0i64; 0]);
    }

    #[test]
    fn a_wrong_rank_names_tensor_axes_and_shape() {
        let x = Tensor::zeros([2, 3], (Kind::Float, Device::Cpu));
        let message = dims("gate", &x, ["B", "S", "D"]).unwrap_err().to_string();
        assert_eq!(message, "tensor `gate` must have 3 axes [B,S,D], got 2 with shape [2, 3]");
    }
}
