"""List the usual names of the columns of a published table, by the role that each plays in an audit."""

SPELLINGS = {  # for ids the first name that a table has is taken, for site and split all
    "patient": "patient_id patient patient_number patient_no patient_name subject_id subject participant_id participant "
    "person_id person case_id mrn pid",
    "site": "site site_id site_name center centre center_id centre_id hospital hospital_id hospital_name "
    "institution institution_id institution_name clinic client client_id",
    "split": "split fold fold_id kfold set subset partition usage",
    "study": "study_instance_uid study_uid study_id study exam_id exam accession_number accession",
    "series": "series_instance_uid series_uid series_id series",
    "image": "sop_instance_uid sop_uid image_id image image_name file_name",
    "pixels": "png_sha256 pixel_sha256 pixels_sha256 pixel_hash pixels_hash image_hash sha256 sha1 md5",
}
