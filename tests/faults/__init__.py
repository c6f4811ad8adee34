"""What commands do when they are killed, when two run at once, and when their input is bad: counted."""
