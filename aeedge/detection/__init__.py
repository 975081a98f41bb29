"""From scores to alarms: conformal calibration, and what makes a sample anomalous."""
