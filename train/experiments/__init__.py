"""The experiments of `qaserve bench`, one file each over one harness. Serving imports none of them."""
