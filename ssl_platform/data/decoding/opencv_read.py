"""OpenCV as a reader of values as they are stored."""

import cv2
import numpy as np


def opencv_read(data: bytes) -> np.ndarray | None:
    """(H, W) or (H, W, C) values, colours in the order red, green, blue; None if it cannot."""
    before = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None
    finally:
        cv2.utils.logging.setLogLevel(before)
    if values is None or values.ndim == 2 or values.shape[2] < 3:
        return values
    return values[..., [2, 1, 0, *range(3, values.shape[2])]]
